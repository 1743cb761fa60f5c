"""The operator as a process: stands for election, leads while it can, answers the webhook and the page all the time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import signal
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry

from agent.cluster.client import ApiServer
from agent.cluster.credentials import find_access
from agent.cluster.errors import ApiError, Unreachable
from agent.errors import EnvironmentProblem
from agent.log import configure
from agent.operator.certificates import FileCertificate, OwnCertificate
from agent.operator.definitions import install
from agent.operator.election import Election
from agent.operator.figures import Figures, FiguresCollector
from agent.operator.injection import Injection
from agent.operator.neighbours import cilium
from agent.operator.page import Page
from agent.operator.pen import Pen
from agent.operator.reign import Reign
from agent.operator.settings import OperatorSettings, WebhookSettings
from agent.operator.webhook import Certificate, Webhook
from agent.supervise import Tasks
from flows.rpc.tls import TlsFiles

ANSWER_SECONDS: Final = 45.0  # without an answer of the API server we are of no use
RETRY_SECONDS: Final = 2.0

log = logging.getLogger("deflector.operator")


async def run_operator(settings: OperatorSettings) -> int:
    """Run until SIGINT or SIGTERM; the exit code. Raises EnvironmentProblem when it cannot start, or must not go on."""
    configure()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    access = find_access(settings.kubeconfig, settings.context)
    async with ApiServer(access, f"deflector-operator/{settings.identity}") as server:
        return await Operator(server, settings).run(stop)


class Operator:
    """One of several. `run` is its life."""

    def __init__(self, server: ApiServer, settings: OperatorSettings) -> None:
        self.election = Election(server, settings.namespace, settings.identity, settings.timing)
        self.reign: Reign | None = None
        self._server = server
        self._settings = settings
        self._version = importlib.metadata.version("deflector")
        self._tasks = Tasks()
        self._pen = Pen(server, lambda: self.election.is_leading, settings.writes_per_second)
        self._registry = CollectorRegistry()
        self._registry.register(FiguresCollector(self._figures))
        self._page = Page(settings.page, self._registry, self._lack) if settings.page else None
        self._renewed = asyncio.Event()
        self._certificate = _certificate(settings) if settings.webhook.port else None
        self.webhook = Webhook(settings.webhook.port, self._certificate) if self._certificate is not None else None

    async def run(self, stop: asyncio.Event) -> int:
        """Until `stop`. Raises EnvironmentProblem."""
        try:
            if self._page is not None:
                await self._page.start()
            if self.webhook is not None and self._certificate is not None:
                await self._start_webhook(self.webhook, self._certificate)
            self._tasks.start("election", self.election.run(self._lead))
            return await self._until(stop)
        finally:
            await self._tasks.stop()
            if self.webhook is not None:
                await self.webhook.stop()
            if self._page is not None:
                await self._page.stop()

    async def _start_webhook(self, webhook: Webhook, certificate: Certificate) -> None:
        await webhook.start()
        self._tasks.start("certificate", webhook.follow(self._renewed))
        if self._settings.webhook.certificate is None:
            name = self._settings.webhook.configuration
            self._tasks.start("authority", Injection(self._server, name, certificate, self._renewed).run())

    async def _until(self, stop: asyncio.Event) -> int:
        async with asyncio.TaskGroup() as group:
            failed, stopped = group.create_task(self._tasks.failed()), group.create_task(stop.wait())
            await asyncio.wait((failed, stopped), return_when=asyncio.FIRST_COMPLETED)
            failed.cancel()
            stopped.cancel()
        if not failed.done() or failed.cancelled():
            return 0
        failure = failed.result()
        if (problem := _problem_in(failure)) is not None:
            raise problem
        log.error("internal error", exc_info=failure)
        return 1

    async def _lead(self) -> None:
        """Everything that only one may do. Raises EnvironmentProblem where nobody may."""
        await self._prepare()
        self.reign = Reign(self._server, self._pen, self._settings)
        try:
            await self.reign.run()
        finally:
            self.reign = None

    async def _prepare(self) -> None:
        """Look for Cilium, install definitions; again until the server lets us."""
        complaint = ""
        while True:
            try:
                if not self._settings.beside_cilium and (words := await cilium(self._server, datetime.now(UTC))):
                    raise EnvironmentProblem(words)
                if self._settings.install_crds:
                    await install(self._pen)
            except (ApiError, Unreachable, TimeoutError) as error:
                words = str(error) or "definitions are not established yet"
                if words != complaint:
                    log.warning("%s; trying again", words)
                complaint = words
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _lack(self) -> str:
        """What keeps us from being of use."""
        answered = self.election.answered
        if answered is None or asyncio.get_running_loop().time() - answered > ANSWER_SECONDS:
            return "the API server does not answer"
        if self.election.is_leading and not (self.reign is not None and self.reign.is_complete):
            return "leading, but not all objects are known yet"
        return ""

    def _figures(self) -> Figures:
        reviews = self.webhook.answered if self.webhook is not None else Figures().reviews
        if self.reign is None:
            about = (self._version, self._settings.cluster, self.election.is_leading)
            return Figures(*about, written=self._pen.written, reviews=reviews)
        figures = self.reign.figures(self._version)
        figures.reviews.update(reviews)
        return figures


def _certificate(settings: OperatorSettings) -> Certificate:
    """Raises EnvironmentProblem."""
    webhook: WebhookSettings = settings.webhook
    if webhook.certificate is not None and webhook.key is not None:
        return FileCertificate(TlsFiles(webhook.certificate, webhook.key), log.warning)
    name = f"{webhook.service}.{settings.namespace}.svc"
    return OwnCertificate((name, f"{name}.cluster.local"), settings.identity, lambda: datetime.now(UTC))


def _problem_in(failure: BaseException) -> EnvironmentProblem | None:
    """The one that a person has to know of, in whatever it is wrapped."""
    if isinstance(failure, EnvironmentProblem):
        return failure
    if isinstance(failure, BaseExceptionGroup):
        with contextlib.suppress(StopIteration):
            return next(filter(None, map(_problem_in, failure.exceptions)))
    return None
