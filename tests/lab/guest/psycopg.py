"""Clients by psycopg 3 that the torture must not disturb: `psycopg.py DATABASE SECONDS`.

Two connections at once: one inserts, both transfer money and append to a list. Prints figures as guest-torture does,
and what is wrong on standard error.
"""

import sys
import threading
import time

import psycopg
from psycopg import errors

DATABASE, SECONDS = sys.argv[1], float(sys.argv[2])
ACCOUNTS, BALANCE = 4, 1000


class Client(threading.Thread):
    """One connection, and what it was told."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.connection = psycopg.connect(dbname=DATABASE, autocommit=True)
        self.inserted, self.appended, self.moved = [], [], [0] * ACCOUNTS
        self.done = self.retried = 0
        self.full_at, self.errors = [], []

    def run(self):
        end = time.monotonic() + SECONDS
        n = 0
        while time.monotonic() < end and not self.connection.closed:
            n += 1
            for work in (self.insert, self.transfer, self.append):
                if not self.until_done(work, n):
                    return

    def until_done(self, work, n):
        while True:
            try:
                work(n)
                self.done += 1
                return True
            except errors.SerializationFailure:
                self.retried += 1
            except errors.DiskFull:
                self.full_at.append(int(time.time()))
                time.sleep(0.05)
            except Exception as error:  # Whatever else it is told, it should not have been.
                self.errors.append(f"{work.__name__} {n}: {error!r}")
                return False

    def insert(self, n):
        self.connection.execute("INSERT INTO py_inserted VALUES (%s, %s)", (self.number, n))
        self.inserted.append((self.number, n))

    def transfer(self, n):
        source, target = n % ACCOUNTS, (n * 3 + self.number + 1) % ACCOUNTS
        with self.connection.transaction():
            rows = self.connection.execute("SELECT balance FROM py_account WHERE id = %s", (source,))
            amount = rows.fetchone()[0] % 7 + 1
            change = "UPDATE py_account SET balance = balance + %s WHERE id = %s"
            self.connection.execute(change, (-amount, source))
            self.connection.execute(change, (amount, target))
        self.moved[source] -= amount
        self.moved[target] += amount

    def append(self, n):
        item = f"{self.number}:{n}"
        with self.connection.transaction():
            before = self.connection.execute("SELECT items FROM py_list").fetchone()[0]
            self.connection.execute("UPDATE py_list SET items = %s", (f"{before} {item}",))
        self.appended.append((before, item))


def set_up():
    with psycopg.connect(dbname=DATABASE) as connection:
        connection.execute("CREATE TABLE py_inserted (client bigint, n bigint)")
        connection.execute("CREATE TABLE py_account (id bigint PRIMARY KEY, balance bigint)")
        connection.execute("CREATE TABLE py_list (items text)")
        connection.execute("INSERT INTO py_list VALUES ('')")
        with connection.cursor() as cursor:
            accounts = [(id, BALANCE) for id in range(ACCOUNTS)]
            cursor.executemany("INSERT INTO py_account VALUES (%s, %s)", accounts)


def check(clients):
    lost = duplicated = anomalies = 0
    with psycopg.connect(dbname=DATABASE) as connection:
        found = connection.execute("SELECT client, n FROM py_inserted").fetchall()
        accounts = connection.execute("SELECT id, balance FROM py_account").fetchall()
        items = connection.execute("SELECT items FROM py_list").fetchone()[0]
    told = {key for client in clients for key in client.inserted}
    lost += len(told - set(found))
    duplicated += len(found) - len(set(found))
    anomalies += len(set(found) - told)
    for id, balance in accounts:
        expected = BALANCE + sum(client.moved[id] for client in clients)
        if balance != expected:
            print(f"account {id} has {balance}, the transfers say {expected}", file=sys.stderr)
            anomalies += 1
    listed = items.split()
    duplicated += len(listed) - len(set(listed))
    appended = [append for client in clients for append in client.appended]
    lost += len({item for _, item in appended} - set(listed))
    anomalies += len(set(listed) - {item for _, item in appended})
    # Each right behind what its transaction had read.
    anomalies += sum(not f"{items} ".startswith(f"{before} {item} ") for before, item in appended)
    return lost, duplicated, anomalies


def main():
    set_up()
    clients = [Client(number) for number in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    lost, duplicated, anomalies = check(clients)
    for client in clients:
        for error in client.errors:
            print(f"psycopg was told: {error}", file=sys.stderr)
    print(
        f"done={sum(client.done for client in clients)} retried={sum(client.retried for client in clients)}",
        f"lost={lost} duplicated={duplicated} anomalies={anomalies}",
        f"client_errors={sum(len(client.errors) for client in clients)}",
        "full_at=" + ",".join(str(at) for client in clients for at in client.full_at),
    )


main()
