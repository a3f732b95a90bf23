"""Static pages of a run: `page.render` makes the HTML, `page.write_report` writes it."""
