"""A runtime that breaks with a key in its hands, and one that shows everything."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr.errors import AtomrError
from atomr.otp import supervision_tree
from atomr.otp import sys as otp_sys
from atomr_infer.runtimes.contract import Host, RunnerContext, RuntimePlugin
from atomr_infer.serving.names import DEPLOYMENTS, GATEWAYS, MANAGER, REQUESTS
from atomr_infer.testing.mock import MockRunner
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.otp import TreeNode
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.deployment import Deployment


class LeakyRunner(MockRunner):
    """Answers as the mock does, but for three models."""

    def __init__(self, deployment: Deployment, context: RunnerContext) -> None:
        super().__init__(MockScript())
        self.deployment = deployment
        self.context = context
        self.dying = trio.Event()

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        credentials = self.context.credentials
        assert credentials is not None
        grant = await credentials.current(batch.client_headers)
        if batch.model == "boom":
            raise RuntimeError(f"broke with {self.context} and {grant} for {batch}")
        if batch.model == "die":
            self.dying.set()
        if batch.model == "dump":
            for name in (DEPLOYMENTS, MANAGER, REQUESTS, GATEWAYS):
                root = supervision_tree(name)
                assert root is not None
                await dump(root)
        async with super().execute(batch) as chunks:
            yield chunks

    async def failed(self) -> InferenceError:
        await self.dying.wait()
        raise RuntimeError(f"died with {self.deployment} and {self.context}")


async def dump(node: TreeNode) -> None:
    """Write what ``sys`` tells of a process and of those below it."""
    print("NODE", node, file=sys.stderr)
    if node.pid is not None:
        for ask in (otp_sys.get_state, otp_sys.get_status):
            try:
                told = await ask(node.pid, timeout_s=1.0)
            except AtomrError as error:
                told = error
            print("SYS", repr(told), getattr(told, "__dict__", ""), file=sys.stderr)
    for child in node.children:
        await dump(child)


class LeakyPlugin(RuntimePlugin):
    """The runtime ``leaky``."""

    name = "leaky"
    summary = "for the leak test"
    host = Host.IN_PROCESS

    def validate(self, deployment: Deployment) -> None:
        """Anything goes."""

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[LeakyRunner]:
        yield LeakyRunner(deployment, context)


PLUGIN = LeakyPlugin()
