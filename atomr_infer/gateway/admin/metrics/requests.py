"""What was counted of requests, as families."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.metrics.table import Table
    from atomr_infer.serving.requests.meters import Meters, OfDeployment

_ANSWERED = "answered"


def add_requests(table: Table, meters: Meters) -> None:
    """Put in all that was counted, deployment by deployment."""
    for name, of in sorted(meters.deployments.items()):
        _add_ends(table, name, of)
        _add_tokens(table, name, of)
        _add_times(table, name, of)
    for (action, dialect, status), count in sorted(meters.answers.items()):
        table.count(
            "answers",
            "Answers to HTTP requests of clients; status 0: the client left first.",
            count,
            action=action,
            dialect=dialect,
            status=status,
        )


def _add_ends(table: Table, name: str, of: OfDeployment) -> None:
    for outcome, count in sorted(of.ended.items()):
        told = "Requests that have ended, by the deployment that was asked last."
        table.count("requests", told, count, deployment=name, outcome=outcome)
    for error, count in sorted(of.attempts.items()):
        told = "Attempts, by what they failed with."
        table.count("attempts", told, count, deployment=name, result=error or _ANSWERED)
    table.count(
        "retries",
        "Attempts at the deployment that the same request had asked before.",
        of.retries,
        deployment=name,
    )
    for before, count in sorted(of.fallbacks.items()):
        told = "Attempts that took over from another deployment."
        table.count("fallbacks", told, count, deployment=name, before=before)
    table.count(
        "recovered",
        "Answers that were cut and are whole all the same.",
        of.recovered,
        deployment=name,
    )


def _add_tokens(table: Table, name: str, of: OfDeployment) -> None:
    for kind, count in sorted(of.tokens.items()):
        told = "Tokens of all attempts; each token is in one kind."
        table.count("tokens", told, count, deployment=name, kind=kind)
    table.count(
        "estimated_attempts",
        "Attempts whose tokens nobody told, so that they were counted here.",
        of.estimated,
        deployment=name,
    )
    table.count(
        "cost_usd",
        "What requests cost, as far as it is known.",
        of.cost_usd,
        deployment=name,
    )
    table.count(
        "unpriced_requests",
        "Requests that used tokens whose price is not known.",
        of.unpriced,
        deployment=name,
    )


def _add_times(table: Table, name: str, of: OfDeployment) -> None:
    for metric, told, histogram in (
        ("request_seconds", "From a request's arrival to its end.", of.request_s),
        (
            "wait_seconds",
            "From a request's arrival to the first attempt: limits and queues.",
            of.wait_s,
        ),
        (
            "first_token_seconds",
            "From a request's arrival to the first words of its answer.",
            of.first_s,
        ),
        (
            "token_seconds",
            "Seconds for each token of an answer behind the first.",
            of.token_s,
        ),
    ):
        table.histogram(metric, told, histogram, name)
