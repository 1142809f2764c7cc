"""The tasks of a panel over HTTP: JSON in and out, a page to try them on, and the description of both."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from foundation.core.errors import UserError
from foundation.core.memory import give_back_freed_memory
from foundation.serving.batching import Batcher, Busy
from foundation.serving.config import ServeConfig
from foundation.serving.limits import BodyLimit
from foundation.serving.panel import Answer, Panel
from foundation.serving.questions import Asked, check_rows, describe_tasks

Answers: TypeAlias = dict[str, list[Answer]]

_PAGE = Path(__file__).parent / "page.html"
# The page is one file: nothing is fetched from anywhere, and no script but its own runs.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# Requests of ever other sizes, freed in any order, leave holes in the heap. Measured over 4 minutes of full load on a toy:
# +0.9 MB a minute with the holes given back, +2.4 without; what is in use stays the same.
_GIVE_BACK_EVERY_S = 1.0
_LOOPBACK = ("127.0.0.1", "localhost")
_EXAMPLE: Any = {"rows": [{"text": "A fine film, from the first scene to the last."}]}


class Question(BaseModel):
    """Rows, and who is asked about them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    rows: Annotated[
        list[dict[str, str | list[str]]],
        Field(min_length=1, description="What is asked about; the inputs of a row are those that /tasks names."),
    ]
    tasks: Annotated[
        list[str] | None,
        Field(min_length=1, description="Names from /tasks; left out: every task whose inputs the rows have."),
    ] = None


class Reply(BaseModel):
    """For every row, in order, each task's answer, as foundation.predict writes it."""

    answers: list[dict[str, dict[str, Any]]]


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


class Health(BaseModel):
    """Whether questions are answered, and how many have been; rows: that wait."""

    status: str
    uptime_seconds: float
    answered: int
    batches: int
    waiting_rows: int


class _Desk:
    """Where questions are taken and answered: the panel's, from the moment the server is up until it stops."""

    def __init__(self, panel: Panel, cfg: ServeConfig) -> None:
        self.panel, self.cfg = panel, cfg
        self._started = self._gave_back = time.monotonic()

    @asynccontextmanager
    async def open(self, app: FastAPI) -> AsyncIterator[None]:
        """Until the server stops; what waits then is still answered."""
        cfg = self.cfg
        self._batcher: Batcher[Asked, Answers] = Batcher(
            self._answer, max_rows=cfg.batch_rows, wait_s=cfg.wait_ms / 1000, max_waiting=cfg.waiting_rows
        )
        self._running = asyncio.create_task(self._batcher.run())
        yield
        self._batcher.close()
        await self._running

    def _answer(self, jobs: Sequence[Asked]) -> list[Answers]:
        """All jobs' rows as one question, and the answers given back to each."""
        together: Asked = {}
        for job in jobs:
            for name, rows in job.items():
                together.setdefault(name, []).extend(rows)
        found = {name: iter(answers) for name, answers in self.panel.answer(self.panel.prepare(together)).items()}
        if time.monotonic() - self._gave_back > _GIVE_BACK_EVERY_S:
            give_back_freed_memory()
            self._gave_back = time.monotonic()
        return [{name: [next(found[name]) for _ in rows] for name, rows in job.items()} for job in jobs]

    async def ask(self, question: Question) -> Reply:
        """Answers row by row."""
        job = check_rows(self.panel, question.rows, question.tasks, self.cfg)
        try:
            found = await self._batcher.ask(job, len(question.rows))
        except Busy:
            raise HTTPException(503, "too many rows wait already: try again in a moment") from None
        return Reply(answers=[{name: found[name][row] for name in job} for row in range(len(question.rows))])

    def health(self) -> Health:
        """Counts since the start."""
        return Health(
            status="stopped" if self._running.done() else "ok",
            uptime_seconds=round(time.monotonic() - self._started, 3),
            answered=self._batcher.n_jobs,
            batches=self._batcher.n_batches,
            waiting_rows=self._batcher.waiting_rows,
        )


def make_app(panel: Panel, cfg: ServeConfig) -> FastAPI:
    """The application; the panel answers in a thread of its own."""
    desk = _Desk(panel, cfg)
    app = FastAPIOffline(
        title="Foundation",
        summary="Tasks fine-tuned from one encoder.",
        lifespan=desk.open,
        redoc_url=None,
        responses={code: {"model": Problem} for code in (400, 408, 413, 422, 503)},
    )
    app.add_middleware(BodyLimit, body_bytes=cfg.body_bytes)
    if cfg.host in _LOOPBACK:
        # Else a page of another site could have its own name point here, and read the answers in a visitor's browser.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_LOOPBACK))
    _say_errors(app)

    @app.post("/answer", summary="Ask tasks about rows")
    async def ask(question: Question) -> Reply:
        return await desk.ask(question)

    @app.get("/tasks", summary="What can be asked")
    async def tasks() -> dict[str, Any]:
        return describe_tasks(panel, cfg)

    @app.get("/health", summary="Whether questions are answered", responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        found = desk.health()
        return JSONResponse(found.model_dump(), 200 if found.status == "ok" else 503)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    return app


def _say_errors(app: FastAPI) -> None:
    """Every refusal is {"error": one sentence}."""

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        is_body = error.status_code == 400 and "parsing the body" in str(error.detail)
        sentence = "the body is not JSON in UTF-8" if is_body else str(error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"this is our fault, not yours: {type(error).__name__}"}, 500)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse({"error": f"the body is not JSON: {first['ctx']['error']}"}, 400)
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return JSONResponse({"error": f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"}, 422)
