"""Completions from a server with OpenAI's HTTP interface: vLLM, SGLang, llama.cpp, `transformers serve`.

One request a sample: chat completions for prompts of messages, completions for strings. Each has a seed of
its own, a function of the run's seed, the prompt and the sample's index, so that it does not matter in which
order the server answers, or how often it was killed in between.

Failures differ. The server's fault (no connection, overload) is waited for, with growing pauses, and
then ends the run: what is there is kept, and the same command continues. The prompt's fault (a request that
is refused, or fails or takes too long again and again) is a missing sample of that prompt, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn
from urllib.parse import urlsplit

from datadose.errors import InputError, RunError, reject, require_extra, require_integer, require_number
from datadose.llm.cache import content_digest
from datadose.llm.engines import Keep, Request
from datadose.llm.generation import Sampling
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import Row
from datadose.llm.responses import choices_of, message_of
from datadose.llm.sample_store import OWN, Drawn
from datadose.printing import note

KEY = "OPENAI_API_KEY"
"""The environment variable with the key, if the server requires one. It is written nowhere."""

_TRIES, _TIMEOUTS = 8, 2
"""Tries of a request that fails at once, and of one that takes too long."""

_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second try, doubled before each further one, and the longest pause."""

_FAILURES = 20
"""Samples that fail one after the other, at least, before that is the server's fault."""

_PROBE = 10.0
"""Seconds for the first connection."""

_REFUSED = (400, 413, 422)
"""The prompt's fault."""
_BUSY = (408, 425, 429, 502, 503, 504)
"""The server's fault, which passes."""


@dataclass(frozen=True)
class Endpoint:
    """The server that draws samples, and how it is called.

    Args:
        url: of the server, with or without the ``/v1`` at its end.
        model: the name that the server has for the model; by default the only one that it lists.
        concurrency: requests under way at a time, at least 1.
        options: further fields of each request, such as ``{"top_k": -1}``; None leaves a field out.
        timeout: seconds for one answer, above 0.

    Raises InputError for a value out of range, or a URL with a name and password in it.
    """

    url: str
    model: str | None = None
    concurrency: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError:
            reject("endpoint", self.url, _URL)
        if parts.username is not None or parts.password is not None:
            reject("endpoint", "a URL with a name or a password", f"{_URL}; a key goes into {KEY}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            reject("endpoint", self.url, _URL)
        if not isinstance(self.options, Mapping):
            reject("endpoint-options", self.options, 'an object, such as {"top_k": -1}')
        require_integer("concurrency", self.concurrency, 1, 4096)
        require_number("endpoint-timeout", self.timeout, 0, 86400, open_ends=True)

    @property
    def base(self) -> str:
        """The URL that the paths of the interface follow."""
        url = self.url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"

    def record(self) -> dict[str, Any]:
        """The settings as the manifest holds them, without the key."""
        return {
            "endpoint": self.url,
            "endpoint_model": self.model,
            "endpoint_options": dict(self.options),
        }

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        key = os.environ.get(KEY)
        return {"Authorization": f"Bearer {key}"} if key else {}


_URL = "the URL of a server, such as http://localhost:8000/v1"


class _PromptFault(Exception):  # noqa: N818 - it is no error of the program
    """A sample that cannot be had; ``str`` is the reason."""


class EndpointEngine:
    """Draws from the server at ``endpoint``, whose models are listed if ``endpoint`` names none.

    ``model`` is the one that is scored: it measures prompts, and its digest is a part of the settings.

    Raises InputError for a server that does not answer, or that lists several models and ``model`` is none.
    """

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, model: LanguageModel, sampling: Sampling) -> None:
        require_extra("llm", "httpx2")
        self.endpoint, self.model, self.sampling = endpoint, model, sampling
        self.model_name = endpoint.model or served_model(endpoint, model.name)
        self.seeded = True
        """Whether the server takes seeds, as far as is known."""
        self.settings = {
            **sampling.settings(),
            "engine": self.name,
            "scored_model": model.digest,
            "tokenizer": model.tokenizer_digest,
            "served_model": self.model_name,
            "options": dict(endpoint.options),
        }

    def key(self, row: Row) -> tuple[str, int] | None:
        """A digest of what is sent; the length is that under the scored model."""
        tokens = len(self.model.prompt_ids(row))
        return (content_digest(_content(row)), tokens) if tokens < self.model.context_length else None

    def draw(self, requests: Sequence[Request], rows: Sequence[Row], keep: Keep) -> None:
        """Draw with ``concurrency`` requests at a time; a prompt's samples are kept when the last is there.

        Whatever ends the run, samples that were had are kept before.

        Raises InputError for a server that is not there, or refuses the key or the model; RunError for one
        that goes away, or fails on every prompt, while it works.
        """
        ask(self.endpoint)
        _finish(_Work(self, requests, rows, keep).run())

    def body(self, request: Request, row: Row, index: int) -> tuple[str, dict[str, Any]]:
        """Path and body of the request for one sample."""
        room = min(self.sampling.max_tokens, self.model.context_length - request.tokens)
        content = _content(row)
        found: dict[str, Any] = {
            "model": self.model_name,
            **content,
            "max_tokens": room,
            "temperature": 0.0 if index == OWN else self.sampling.temperature,
            "top_p": 1.0,
        }
        if self.seeded and index != OWN:
            found["seed"] = int(content_digest([self.sampling.seed, request.key, index])[:8], 16) >> 1
        found.update(self.endpoint.options)
        path = "/chat/completions" if "messages" in content else "/completions"
        return path, {name: value for name, value in found.items() if value is not None}


def _content(row: Row) -> dict[str, Any]:
    """The prompt as the interface has it."""
    if isinstance(row.prompt, str):
        return {"prompt": row.prompt}
    extra = {
        "tools": row.tools,
        "chat_template_kwargs": row.template_options or None,
    }
    return {"messages": row.prompt, **{name: value for name, value in extra.items() if value}}


def ask(endpoint: Endpoint) -> list[str] | None:
    """Names of the models that the server lists; None if it lists none.

    Raises InputError for a server that does not answer, or refuses the key.
    """
    import httpx2  # noqa: PLC0415 - optional

    try:
        found = httpx2.get(f"{endpoint.base}/models", headers=endpoint.headers(), timeout=_PROBE)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        allowed = f"the URL of a running server with OpenAI's interface ({_said(error)})"
        raise InputError("endpoint", endpoint.url, allowed) from error
    if found.status_code in (401, 403):
        _refuse_all(endpoint, f"HTTP {found.status_code}", found.status_code)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [str(one["id"]) for one in found.json()["data"]] or None
    return None


def served_model(endpoint: Endpoint, name: str) -> str:
    """The server's only model, or ``name`` if it lists that one or none; else InputError with the names."""
    names = ask(endpoint)
    if names is None or name in names:
        return name
    if len(names) > 1:
        reject("endpoint-model", "none", f"a model of the server: {', '.join(sorted(names)[:20])}")
    return names[0]


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run it, in a notebook's running loop too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def _refuse_all(endpoint: Endpoint, problem: str, status: int) -> NoReturn:
    """InputError for what no prompt changes: a key, a path, a model."""
    if status in (401, 403):
        reject("endpoint", endpoint.url, f"a server that accepts the key in {KEY} ({problem})")
    reject(
        "endpoint", endpoint.url, f"a server with this interface and model; see --endpoint-model ({problem})"
    )


class _Kind(Enum):
    """What became of a request."""

    DONE = "answered"
    REFUSED = "the prompt, or a field, is refused"
    FAILED = "an error of the server on this request, or an answer of another form"
    SLOW = "no answer in time"
    AWAY = "no connection, or the server is busy"


@dataclass(frozen=True)
class _Outcome:
    kind: _Kind
    problem: str = ""
    choice: tuple[str, str] = ("", "")
    pause: float = 0.0
    """Seconds for which the server requests no further call."""


class _Work:
    """One call of ``draw``."""

    def __init__(
        self, engine: EndpointEngine, requests: Sequence[Request], rows: Sequence[Row], keep: Keep
    ) -> None:
        self.engine, self.requests, self.rows, self.keep = engine, requests, rows, keep
        self.endpoint = engine.endpoint
        self.had: dict[str, list[Drawn]] = defaultdict(list)
        """Completions of prompts that are not finished."""
        self.failures = 0
        """Samples that failed or took too long since the last one that was had."""

    async def run(self) -> None:
        """Send all requests; what was had is kept, whatever happens."""
        import httpx2  # noqa: PLC0415 - optional

        count = self.endpoint.concurrency
        jobs = ((one, index) for one in self.requests for index in one.indices)
        async with httpx2.AsyncClient(
            headers=self.endpoint.headers(),
            timeout=httpx2.Timeout(self.endpoint.timeout, connect=_PROBE, pool=None),
            limits=httpx2.Limits(max_connections=count, max_keepalive_connections=count),
        ) as client:
            workers = [asyncio.create_task(self._worker(client, jobs)) for _ in range(count)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                for key, drawn in self.had.items():
                    self.keep({key: drawn})

    async def _worker(self, client: Any, jobs: Iterator[tuple[Request, int]]) -> None:
        for request, index in jobs:
            try:
                drawn = Drawn(index, *await self._sample(client, request, index))
            except _PromptFault as fault:
                drawn = Drawn(index, None, str(fault))
            had = self.had[request.key]
            had.append(drawn)
            if len(had) == len(request.indices):
                self.keep({request.key: self.had.pop(request.key)})

    async def _sample(self, client: Any, request: Request, index: int) -> tuple[str, str]:
        """One sample's text and finish, after as many tries as it takes."""
        path, body = self.engine.body(request, self.rows[request.place], index)
        pause, slow, refusal = _PAUSE, 0, ""
        for left in reversed(range(_TRIES)):
            found = await self._post(client, path, body)
            if found.kind is _Kind.DONE:
                self.failures = 0
                if refusal:
                    self._without_seeds(refusal)
                return found.choice
            if found.kind is _Kind.REFUSED:
                if "seed" not in body:
                    raise _PromptFault(refusal or found.problem)
                # Servers that take no seed refuse it like a prompt: a request without a seed shows which.
                refusal = found.problem
                del body["seed"]
                continue
            slow += found.kind is _Kind.SLOW
            if not left or slow == _TIMEOUTS:
                self._give_up(found)
            # Not all at once, after a server has come back.
            await asyncio.sleep(max(pause * random.uniform(0.5, 1), found.pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError

    async def _post(self, client: Any, path: str, body: dict[str, Any]) -> _Outcome:
        import httpx2  # noqa: PLC0415 - optional

        try:
            answer = await client.post(f"{self.endpoint.base}{path}", json=body)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout):
            return _Outcome(_Kind.SLOW, f"no answer in {self.endpoint.timeout:g} s")
        except httpx2.HTTPError as error:
            return _Outcome(_Kind.AWAY, _said(error))
        content = None
        with contextlib.suppress(ValueError):
            content = answer.json()
        if answer.status_code != 200:
            return self._error(answer, content)
        if choices := choices_of(content):
            return _Outcome(_Kind.DONE, choice=(choices[0][0], choices[0][1] or "stop"))
        return _Outcome(_Kind.FAILED, "an answer without a completion")

    def _error(self, answer: Any, content: Any) -> _Outcome:
        status = answer.status_code
        problem = f"HTTP {status}: {message_of(content, answer.text)}"
        if status in _REFUSED:
            return _Outcome(_Kind.REFUSED, problem)
        if status in _BUSY:
            return _Outcome(_Kind.AWAY, problem, pause=_asked_pause(answer.headers.get("retry-after")))
        if 400 <= status < 500:
            _refuse_all(self.endpoint, problem, status)
        return _Outcome(_Kind.FAILED, problem)

    def _without_seeds(self, refusal: str) -> None:
        if self.engine.seeded:
            self.engine.seeded = False
            note(f"the server takes no seed ({refusal}): samples cannot be drawn again as they were")

    def _give_up(self, found: _Outcome) -> NoReturn:
        """The prompt's fault, unless nothing works any more."""
        self.failures += 1
        if found.kind is _Kind.AWAY:
            msg = f"endpoint {self.endpoint.url}: {found.problem}, {_TRIES} times"
            raise RunError(msg)
        if self.failures > max(_FAILURES, 2 * self.endpoint.concurrency):
            msg = f"endpoint {self.endpoint.url}: {found.problem}; {self.failures} samples in a row failed"
            raise RunError(msg)
        raise _PromptFault(found.problem)


def _asked_pause(header: str | None) -> float:
    """The seconds in a Retry-After header, at most the longest pause; 0 without, or where it is a date."""
    try:
        return min(max(float(header or 0), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return 0.0
