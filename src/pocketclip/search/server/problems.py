"""What is wrong, as one sentence: the same record for every refusal, from a route or from a guard before it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Send


class Problem(BaseModel):
    """Why there is no answer."""

    status: int = Field(description="HTTP status", examples=[404])
    message: str = Field(
        description="One sentence: what is wrong, and what to do",
        examples=["there is no item 12 in this index"],
    )


class Refusal(HTTPException):
    """Ends a request with a problem: HTTP status, one sentence, headers of the answer."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))


def problem_body(status: int, message: str) -> bytes:
    """JSON of a `Problem`."""
    return json.dumps({"status": status, "message": message}).encode()


async def refuse(send: Send, refusal: Refusal) -> None:
    """Sends a problem from a guard, and ends the connection: the request's body may still be on its way."""
    body = problem_body(refusal.status_code, refusal.detail)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **(refusal.headers or {}),
    }
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": raw})
    await send({"type": "http.response.body", "body": body})
