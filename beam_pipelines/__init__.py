"""Corpus work on Apache Beam: one file a stage, each a few lines around pure functions."""

from __future__ import annotations

import logging


def _is_no_noise(record: logging.LogRecord) -> bool:
    # Beam says at import that its Google Cloud extra is not there, which a local run never needs.
    return "apitools not found" not in record.getMessage()


logging.getLogger().addFilter(_is_no_noise)
