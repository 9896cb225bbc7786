"""The owner's application: one package of the catalogue a page, read from the database through psycopg."""
from urllib.parse import unquote
from wsgiref.simple_server import make_server

import psycopg

connection = psycopg.connect("dbname=catalog host=/run/postgresql", autocommit=True)


def application(environ, start_response):
    name = unquote(environ["PATH_INFO"].rsplit("/", 1)[-1])
    row = connection.execute(
        "SELECT name, version, summary FROM package WHERE name = %s ORDER BY id LIMIT 1", (name,)
    ).fetchone()
    start_response("200 OK" if row else "404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return ["\t".join(column or "" for column in row).encode() + b"\n"] if row else []


make_server("127.0.0.1", 8081, application).serve_forever()
