-- What must come out of the demo's data, computed from the CDNOW file alone.
--
-- The table cdnow (order_id, line) holds the file's lines and the table rate (date, currency,
-- usd_per_unit) the exchange rates; everything else follows from docs/demo-data.md,
-- docs/assets.md and docs/clv.md.

-- A quotient in cents, half a cent to the even one. PostgreSQL rounds it away from zero.
CREATE FUNCTION cents(numerator numeric, denominator numeric DEFAULT 1) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT 0.01 * (whole + (2 * rest > denominator OR 2 * rest = denominator AND whole % 2 = 1)::int)
    FROM (SELECT div(100 * numerator, denominator) AS whole,
                 mod(100 * numerator, denominator) AS rest) AS cent
$$;

CREATE FUNCTION midnight(day date) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$ SELECT day::timestamp AT TIME ZONE 'UTC' $$;

CREATE FUNCTION first_name(id bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (string_to_array(
        'Ada Alan Amira Anna Boris Carla Chen Dana Diego Elena Emil Farah Grace Hana Ivan Jana '
        'Karim Lena Linus Maria Milan Nora Omar Petra Rosa Samir Sofia Tariq Vera Yuki Zoe', ' '
    ))[1 + id % 31]
$$;

CREATE FUNCTION last_name(id bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (string_to_array(
        'Abbott Almeida Baker Berg Castro Clark D''Angelo Diaz Evans Fischer Garcia Haddad Ivanova '
        'Jensen Kaya Keller Lopez Mensah Meyer Nakamura Novak O''Brien Okafor Olsen Park Patel '
        'Quinn Rossi Santos Silva Smith Tanaka Usman Vogel Weber Yilmaz Zhang', ' '
    ))[1 + id % 37]
$$;

CREATE FUNCTION valid_email(id bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT lower(replace(first_name(id) || '.' || last_name(id), '''', '')) || '.' || id
        || '@example.com'
$$;

CREATE TABLE raw_orders AS
WITH purchase AS (
    SELECT order_id, regexp_split_to_array(trim(line, E' \r'), ' +') AS part FROM cdnow
), typed AS (
    SELECT order_id, part[1]::bigint AS customer_id, part[2]::date + 9861 AS order_date,
        part[3]::integer AS quantity, part[4]::numeric(12, 2) AS total_amount,
        CASE order_id % 23 WHEN 0 THEN 'pending' WHEN 1 THEN 'paid' WHEN 2 THEN 'shipped'
            WHEN 3 THEN 'shipped' ELSE 'delivered' END AS status
    FROM purchase
), dated AS (
    SELECT *, midnight(order_date) + order_id * 7919 % 86400 * interval '1 second' AS created_at
    FROM typed
)
SELECT *,
    CASE customer_id % 11 WHEN 7 THEN 'EUR' WHEN 8 THEN 'EUR' WHEN 9 THEN 'GBP' WHEN 10 THEN 'CAD'
        ELSE 'USD' END AS currency,
    created_at + interval '1 hour' * CASE status WHEN 'pending' THEN 0 WHEN 'paid' THEN 1
        WHEN 'shipped' THEN 30 ELSE 78 END AS updated_at
FROM dated;

CREATE VIEW incremental_orders AS SELECT * FROM raw_orders;

CREATE VIEW raw_customers AS
WITH dated AS (
    SELECT customer_id AS id, midnight(min(order_date)) - (customer_id % 30 + 1) * interval '1 day'
        + customer_id * 37 % 86400 * interval '1 second' AS created_at
    FROM raw_orders GROUP BY customer_id
), flawed AS (
    SELECT *, CASE WHEN id % 29 = 0 THEN NULL WHEN id % 23 = 0
        THEN replace(valid_email(id), 'example.com', '') ELSE valid_email(id) END AS address,
        id % 13 = 0 AS has_blanks
    FROM dated
)
SELECT id AS customer_id,
    CASE WHEN id % 11 = 0 THEN upper(address) ELSE address END AS email,
    CASE WHEN has_blanks THEN '  ' ELSE '' END || first_name(id) AS first_name,
    last_name(id) || CASE WHEN has_blanks THEN ' ' ELSE '' END AS last_name,
    created_at,
    created_at + (60 + id % 300) * interval '1 day' AS updated_at
FROM flawed;

CREATE VIEW raw_customer_files AS
WITH file (name, low, high) AS (VALUES
    ('customers-shop.csv', 23571, 23870), ('customers-app.jsonl', 23871, 24070),
    ('customers-fair.parquet', 24071, 24570), ('customers-phone.csv', 24571, 24690)
), customer AS (
    SELECT name, id, valid_email(id) AS email, last_name(id) AS last_name
    FROM file, generate_series(low::bigint, high) AS id
    UNION ALL SELECT 'customers-shop.csv', id, 'renamed.' || id || '@example.com', 'Renamed'
    FROM generate_series(1009::bigint, 8072, 1009) AS id
), dated AS (
    SELECT *, timestamptz '2025-09-01 00:00Z' + id * interval '1 second' AS updated_at FROM customer
)
SELECT id AS customer_id, email, first_name(id) AS first_name, last_name,
    updated_at - interval '30 days' AS created_at, updated_at, name AS _source_file
FROM dated;

CREATE TABLE judged AS
WITH row_of_any_origin AS (
    SELECT *, 'raw_customers' AS source FROM raw_customers UNION ALL SELECT * FROM raw_customer_files
)
SELECT *, CASE
    WHEN updated_at < max(updated_at) OVER (PARTITION BY customer_id)
    THEN 'superseded by a newer row'
    WHEN email IS NULL THEN 'email is missing'
    WHEN email LIKE '%@' THEN 'email has no domain' END AS reason
FROM row_of_any_origin;

CREATE VIEW rejected_customers AS SELECT * FROM judged WHERE reason IS NOT NULL;

CREATE TABLE clean_customers AS
SELECT customer_id, lower(email) AS email, trim(first_name) AS first_name,
    trim(last_name) AS last_name, created_at, updated_at
FROM judged WHERE reason IS NULL;

CREATE VIEW customer_metrics AS
SELECT customer_id, email, first_name, last_name, min(currency) AS currency,
    count(order_id) AS total_orders, coalesce(sum(total_amount), 0) AS total_spent,
    cents(sum(total_amount), nullif(count(order_id), 0)) AS avg_order_value,
    min(order_date) AS first_order_date, max(order_date) AS last_order_date,
    max(order_date) - min(order_date) AS customer_lifetime_days
FROM clean_customers LEFT JOIN raw_orders USING (customer_id)
GROUP BY customer_id, email, first_name, last_name;

CREATE VIEW customer_clv AS
WITH as_of AS (
    SELECT max(order_date) AS today, max(order_date) - interval '12 months' AS year_ago,
        max(order_date) - interval '24 months' AS two_years_ago
    FROM raw_orders
), activity AS (
    SELECT customer_id, min(currency) AS currency,
        date_trunc('month', min(order_date))::date AS cohort,
        coalesce(sum(total_amount) FILTER (WHERE order_date > year_ago), 0) AS historical,
        bool_or(order_date > year_ago) AS again,
        bool_or(order_date > two_years_ago AND order_date <= year_ago) AS before
    FROM raw_orders, as_of GROUP BY customer_id
), retention AS (
    SELECT cohort, count(*) FILTER (WHERE before) AS base,
        count(*) FILTER (WHERE before AND again) AS returned
    FROM activity GROUP BY cohort
), predicted AS (
    -- m r / (1 + d - r) with r = returned / base and d = 1 / 10, multiplied by 10 base.
    SELECT *, cents(10 * historical * returned, 11 * base - 10 * returned) AS predicted
    FROM activity JOIN retention USING (cohort)
)
SELECT customer_id, cohort, currency, coalesce(historical, 0) AS historical_clv,
    coalesce(returned::float8 / base, 0) AS retention, coalesce(predicted, 0) AS predicted_clv,
    coalesce(historical + predicted, 0) AS total_clv
FROM clean_customers LEFT JOIN predicted USING (customer_id);

CREATE VIEW exchange_rates AS
SELECT day::date AS date, currency,
    round((mean + swing * sin(2 * pi() * (day::date - date '2024-01-01') / period))::numeric, 8)
        AS usd_per_unit
FROM (VALUES ('EUR', 1.09, 0.05, 365), ('GBP', 1.27, 0.06, 270), ('CAD', 0.73, 0.02, 180))
    AS curve (currency, mean, swing, period),
    generate_series(timestamp '2024-01-01', now() AT TIME ZONE 'UTC', interval '1 day') AS day;

CREATE TABLE enriched_orders AS
SELECT raw_orders.*, email, first_name, last_name,
    clean_customers.customer_id IS NOT NULL AS customer_known,
    coalesce(usd_per_unit, 1) AS usd_per_unit,
    cents(total_amount * coalesce(usd_per_unit, 1)) AS amount_usd
FROM raw_orders LEFT JOIN clean_customers USING (customer_id)
    LEFT JOIN rate ON date = order_date AND rate.currency = raw_orders.currency;

CREATE VIEW daily_order_summary AS
SELECT day::date AS date, count(order_id) AS order_count,
    coalesce(sum(amount_usd), 0) AS total_revenue,
    count(DISTINCT customer_id) AS unique_customers
FROM generate_series(timestamp '2024-01-01', timestamp '2025-07-10', interval '1 day') AS day
    LEFT JOIN enriched_orders ON order_date = day
GROUP BY day;

CREATE VIEW sales_daily_summary AS
WITH span AS (
    SELECT min(order_date)::timestamp AS low, max(order_date)::timestamp AS high FROM raw_orders
), daily AS (
    SELECT day::date AS date, count(order_id) AS order_count,
        coalesce(sum(amount_usd), 0) AS revenue,
        count(*) FILTER (WHERE status = 'pending') AS orders_pending,
        count(*) FILTER (WHERE status = 'paid') AS orders_paid,
        count(*) FILTER (WHERE status = 'shipped') AS orders_shipped,
        count(*) FILTER (WHERE status = 'delivered') AS orders_delivered,
        0 AS orders_other,
        coalesce(sum(amount_usd) FILTER (WHERE status = 'pending'), 0) AS revenue_pending,
        coalesce(sum(amount_usd) FILTER (WHERE status = 'paid'), 0) AS revenue_paid,
        coalesce(sum(amount_usd) FILTER (WHERE status = 'shipped'), 0) AS revenue_shipped,
        coalesce(sum(amount_usd) FILTER (WHERE status = 'delivered'), 0) AS revenue_delivered,
        0 AS revenue_other
    FROM span, generate_series(low, high, interval '1 day') AS day
        LEFT JOIN enriched_orders ON order_date = day
    GROUP BY day
)
SELECT *, cents(revenue, nullif(order_count, 0)) AS avg_order_value,
    cents(sum(revenue) OVER week, count(*) OVER week) AS revenue_7d_avg
FROM daily WINDOW week AS (ORDER BY date ROWS 6 PRECEDING);
