"""Memory does not grow with the table, neither where all is read nor where it is merged into."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2

from forge_platform.testing import ConnectionParameters

ROWS = 25_000
TIMES = 4
MOST_GROWN_MIB = 45  # the larger table has 70 MiB more
PROGRAM = """
import json, resource, sys
from forge_platform import DatabaseResource, ExtractConfig, IcebergResource, SourceTable, extract
from forge_platform.iceberg import write, writer
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

write.MERGE_BYTES = writer.ROW_GROUP_BYTES = 2 << 20
connection, folder = json.loads(sys.argv[1])
iceberg = IcebergResource(
    catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse_path=f"file://{folder}/tables"
)
columns = {"id": "bigint", "body": "text", "updated_at": "timestamptz"}
source = SourceTable("public", "things", columns, key=("id",))
database = DatabaseResource(**connection)
for name in map(str.strip, sys.stdin):
    found = extract(database, source, ExtractConfig(), iceberg.position(name))
    properties = {"forge.watermark": found.watermark}
    request = WriteRequest(rows=found.rows, mode=found.mode or "merge", properties=properties)
    done = write_table(iceberg.catalog(), name, request, TableOptions(key=("id",)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(done.inserted, done.updated, peak, flush=True)
"""
CREATE = "CREATE TABLE things (id bigint PRIMARY KEY, body text, updated_at timestamptz)"
FILL = """
INSERT INTO things SELECT id, repeat(md5(id::text), 30), now() - interval '1 day'
FROM generate_series((SELECT count(*) FROM things) + 1, %s) AS id
"""
CHANGE = "UPDATE things SET updated_at = now(), body = upper(body) WHERE id %% (%s / 100) = 0"


def test_memory_does_not_grow_with_the_table(
    new_database: ConnectionParameters, tmp_path: Path
) -> None:
    """The same process ingests a table and merges into it, and then one that is larger."""
    arguments = json.dumps([new_database, str(tmp_path)])
    with (
        closing(psycopg2.connect(**new_database)) as connection,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(CREATE)
        peaks = []
        for rows in (ROWS, TIMES * ROWS):
            for statement, expected in ((FILL, (rows, 0)), (CHANGE, (0, 100))):
                cursor.execute(statement, [rows])
                print(f"space.things_{rows}", file=process.stdin, flush=True)
                *done, peak = map(int, process.stdout.readline().split())
                assert tuple(done) == expected
                peaks.append(peak)
        process.stdin.close()
    assert peaks[-1] - peaks[1] < MOST_GROWN_MIB, f"{peaks} MiB"
