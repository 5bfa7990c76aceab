"""The limit on PostgreSQL without aiormq's and pamqp's frames: messages are parsed and built as bytes, in bulk."""

from __future__ import annotations

from functools import partial

from benchmarks.bulk_amqp import BulkConnection
from benchmarks.systems.by_hand.on_postgresql import PostgresStore
from benchmarks.systems.by_hand.rabbitmq import run
from benchmarks.systems.process import work

if __name__ == "__main__":
    work(partial(run, open_store=PostgresStore.open, connection=BulkConnection))
