-- A source as small as it can be and still have what the demo's has: 40 customers, of which 4
-- have no e-mail and 5 an older row too, and 120 orders in 30 days and three currencies.

CREATE TABLE public.customers (
    customer_id bigint NOT NULL, email text, first_name text, last_name text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE public.orders (
    order_id bigint PRIMARY KEY, customer_id bigint NOT NULL, order_date date NOT NULL,
    status text NOT NULL, quantity integer NOT NULL, total_amount numeric(12, 2) NOT NULL,
    currency text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE INDEX ON public.customers (updated_at);
CREATE INDEX ON public.orders (updated_at);

INSERT INTO public.customers
SELECT id, CASE WHEN id % 10 <> 0 THEN 'customer.' || id || '@example.com' END,
    'First ' || id, 'Last ' || id, '2024-01-01 00:00Z', '2024-02-01 00:00Z'::timestamptz + id * interval '1 hour'
FROM generate_series(1, 40) AS id;

INSERT INTO public.customers
SELECT customer_id, 'old.' || customer_id || '@example.com', first_name, 'Older', created_at,
    updated_at - interval '20 days'
FROM public.customers WHERE customer_id % 8 = 0;

INSERT INTO public.orders
SELECT id, id % 40 + 1, date '2024-01-01' + id % 30,
    (ARRAY['pending', 'paid', 'shipped', 'delivered'])[id % 4 + 1], 1, id + 0.25,
    (ARRAY['USD', 'EUR', 'GBP'])[id % 40 % 3 + 1], '2024-01-01 00:00Z',
    '2024-03-01 00:00Z'::timestamptz + id * interval '1 hour'
FROM generate_series(1, 120) AS id;
