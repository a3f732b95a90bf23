-- Who owes us money, and for how long?
--
-- Invoices have a due date and can be paid in several instalments. Write a query
-- that lists, for a given day, every customer with an overdue balance: the amount
-- overdue by 1 to 30 days, by 31 to 90 days and by more than 90 days, and the sum.
-- An invoice is overdue from the day after its due date, and only the part not yet
-- paid counts. Customers who owe most come first. Amounts are whole cents.

CREATE TABLE invoice (
    id INTEGER PRIMARY KEY,
    customer TEXT NOT NULL,
    due_date TEXT NOT NULL,             -- ISO format, such as 2024-05-31
    cents INTEGER NOT NULL CHECK (cents > 0)
);

CREATE TABLE payment (
    invoice_id INTEGER NOT NULL REFERENCES invoice (id),
    cents INTEGER NOT NULL CHECK (cents > 0)
);

INSERT INTO invoice (id, customer, due_date, cents) VALUES
    (1, 'Ash Ltd', '2024-05-31', 10000),
    (2, 'Ash Ltd', '2024-02-01', 5000),
    (3, 'Birch & Co', '2024-04-15', 8000),
    (4, 'Cedar', '2024-06-01', 9000),   -- due today, so not overdue
    (5, 'Doug Fir', '2024-01-01', 700);

INSERT INTO payment (invoice_id, cents) VALUES
    (1, 2500),
    (1, 2500),
    (5, 700);                           -- paid in full

-- The payments are summed per invoice before the join: joining first would repeat
-- an invoice with two payments and count its amount twice.
WITH report (day) AS (
    VALUES ('2024-06-01')
),
paid AS (
    SELECT invoice_id, SUM(cents) AS cents
    FROM payment
    GROUP BY invoice_id
),
overdue AS (
    SELECT
        invoice.customer,
        invoice.cents - COALESCE(paid.cents, 0) AS cents,
        julianday(report.day) - julianday(invoice.due_date) AS days_late
    FROM invoice
    CROSS JOIN report
    LEFT JOIN paid ON paid.invoice_id = invoice.id
    WHERE invoice.due_date < report.day
)
SELECT
    customer,
    SUM(CASE WHEN days_late <= 30 THEN cents ELSE 0 END) AS up_to_30_days,
    SUM(CASE WHEN days_late BETWEEN 31 AND 90 THEN cents ELSE 0 END) AS up_to_90_days,
    SUM(CASE WHEN days_late > 90 THEN cents ELSE 0 END) AS over_90_days,
    SUM(cents) AS total
FROM overdue
WHERE cents > 0
GROUP BY customer
ORDER BY total DESC, customer;

-- Expected result:
--   Ash Ltd    | 5000 |    0 | 5000 | 10000
--   Birch & Co |    0 | 8000 |    0 |  8000
