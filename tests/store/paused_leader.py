"""A leader in a process of its own, to be paused: says "leading EPOCH", then tries a commit for every line it reads.

Arguments: endpoint, cluster. Answers a line with "HELD RESULT": whether it still believes to lead, and what became of
the commit it tried all the same.
"""

import asyncio
import sys

import structlog

from argosy.controller.store import Candidate, Election, EtcdClient, EtcdConfig, Put, Store
from argosy.core.errors import ArgosyError
from argosy.core.meta import Meta
from argosy.core.task import Task

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the test


async def main(endpoint: str, cluster: str) -> None:
    async with EtcdClient(EtcdConfig((endpoint,))) as client:
        store = Store(client, cluster)
        election = Election(client, cluster, Candidate("paused", "-"), ttl_s=2)
        async with election.lead() as leadership:
            print("leading", leadership.epoch, flush=True)
            # Blocking on purpose: after the pause nothing else may run before the attempt.
            sys.stdin.readline()
            held = leadership.held()
            try:
                await store.commit([Put(Task(Meta("forged", "default")), None)], leadership.fence)
                result = "applied"
            except ArgosyError as error:
                result = type(error).__name__
            print(held, result, flush=True)


asyncio.run(main(*sys.argv[1:]))
