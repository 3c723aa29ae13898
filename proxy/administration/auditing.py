"""Operations that are recorded in the audit log: whoever can connect to the admin socket is the principal ``part:admin``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from proxy.access.principals import OPERATOR
from proxy.core.audited import Audited, AuditOutcome
from proxy.errors import ProxyError
from proxy.interfaces import IAuditLog, Operation

#: Operations that change nothing, and give out no file, and one that is recorded by who performs it.
READING = frozenset(
    {"claims", "config_diff", "ls", "pins", "recent", "reload", "stats", "tokens", "upstreams", "users", "verify"}
)
#: What is recorded of their arguments, and of what they return; never a secret.
_RECORDED = ("which", "version", "source", "target", "user", "role", "id", "tokens")


def audited(operations: Mapping[str, Operation], audit: IAuditLog) -> dict[str, Operation]:
    """*operations*, of which *audit* is told those that change something."""
    return {name: operation if name in READING else _audited(name, operation, audit) for name, operation in operations.items()}


def _audited(name: str, operation: Operation, audit: IAuditLog) -> Operation:
    @wraps(operation)
    async def performed(*args: Any, **arguments: Any) -> object:
        outcome, result = AuditOutcome.FAILED, None
        try:
            result = await operation(*args, **arguments)
            outcome = AuditOutcome.DONE
        except ProxyError:
            raise
        finally:
            index, project = (_text(arguments.get(key)) for key in ("index", "project"))
            audit.note(Audited(str(OPERATOR), "admin socket", name, outcome, index, project, _what(arguments, result)))
        return result

    return performed


def _what(arguments: Mapping[str, object], result: object) -> str | None:
    named = {**arguments, **({"id": result["id"]} if isinstance(result, dict) and "id" in result else {})}
    said = [f"{key}={_text(named[key])}" for key in _RECORDED if named.get(key) is not None]
    return " ".join(said) or None


def _text(value: object) -> str | None:
    if value is None:
        return None
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
