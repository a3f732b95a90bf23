"""An OpenAI-compatible server with answers by script: a process of its own on loopback.

What it does with a prompt stands in the prompt: `fake=KIND` does it always, `fake=KIND*3` the
first three times that very prompt comes (a server that was started again has forgotten them), and
after that it answers. Without the word it answers at once. KIND is one of

    400 401 404 408 409 413 422 429 500 503 ...   that status (429 with `Retry-After: 1`)
    context     400 in vLLM's words for a prompt that is too long
    nothing     hangs up without a byte
    silent      keeps the connection open and never answers
    garbage     200, and a body that is no JSON
    noise       bytes that are no HTTP
    half        hangs up in the middle of the body
    shapeless   200, JSON without `choices`
    null        200, an answer whose text is null
    flood       a body without an end
    endless     goes on until `max_tokens`
    slow        answers after half a second
    java        answers with a block of another language
    echo        the question's headers, as no HTTP

`--fail KIND` does so at every question, with `--fail-after N` from the one after N on, while
`/health` and `/v1/models` are as good as ever. `--page`: 200 and a page of HTML at every path.

Answers are a function of prompt and seed: a code block for `/v1/chat/completions`, bare code for
`/v1/completions`. With `--log` each question is a line of JSON there before it is answered:
{"time": seconds, "path", "prompt", "seed", "kind", "in_flight", "pid", "headers"}.

Tests use `FakeServer`; by hand: `python tests/synthesis/fake_server.py --port 8001 --log LOG`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

_DIRECTIVE = re.compile(r"fake=([a-z0-9]+)(?:\*([0-9]+))?")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
_PAGE = b"<html>no json</html>"
CONTEXT_MESSAGE = (
    "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens "
    "(8000 in the messages, 1000 in the completion). Please reduce the length of the messages."
)


def answer_text(prompt: str, seed: int, chat: bool) -> str:
    """What the server writes where nothing else is asked for."""
    name = hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()[:16]
    code = f'def total_{name}(values):\n    """Adds them up."""\n    return sum(values)\n'
    return f"Here it is.\n\n```python\n{code}```\n" if chat else f"\n\n{code}"


def _response(status: int, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'No')}\r\nContent-Type: application/json\r\n"
    return f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _error(status: int, message: str, headers: str = "") -> bytes:
    told = {"error": {"message": message, "type": "BadRequestError", "code": status}}
    return _response(status, json.dumps(told).encode(), headers)


class _Settings:
    """What the connections of one server share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.model: str = args.model
        self.api_key: str = args.api_key
        self.health: bool = args.health
        self.delay: float = args.delay
        self.serial: bool = args.serial
        self.free_at = 0.0  # time.monotonic(), where it is serial
        self.max_in_flight: int = args.max_in_flight
        self.fail: str = args.fail
        self.fail_after: int = args.fail_after
        self.page: bool = args.page
        self.num_asked = 0
        self.log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if args.log else None
        self.times: Counter[str] = Counter()  # directives with a count only
        self.in_flight = 0


class _Connection(asyncio.Protocol):
    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            length = _LENGTH.search(head)
            start, size = end + 4, int(length[1]) if length else 0
            if len(self._buffer) < start + size:
                return
            body, self._buffer = self._buffer[start : start + size], self._buffer[start + size :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        settings = self._settings
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if settings.page:
            return self._send(_response(200, _PAGE))
        if path == "/health":
            return self._send(_response(200 if settings.health else 404, b""))
        key = f"\r\nauthorization: bearer {settings.api_key.lower()}\r\n".encode()
        if settings.api_key and key not in head.lower():
            given = re.search(rb"(?i)authorization: (.*)", head)
            told = f"Wrong API key: {given[1].decode()}" if given else "No API key"
            return self._send(_error(401, told))
        if path == "/v1/models":
            models = {"object": "list", "data": [{"id": settings.model, "object": "model"}]}
            return self._send(_response(200, json.dumps(models).encode()))
        if method != "POST" or path not in ("/v1/chat/completions", "/v1/completions"):
            return self._send(_error(404, "Not Found"))
        self._complete(head, path, json.loads(body))

    def _complete(self, head: bytes, path: str, asked: dict[str, Any]) -> None:
        settings = self._settings
        chat = path == "/v1/chat/completions"
        prompt: str = asked["messages"][-1]["content"] if chat else asked["prompt"]
        seed: int = asked.get("seed", 0)
        kind = ""
        if found := _DIRECTIVE.search(prompt):
            kind = found[1]
            if found[2]:
                settings.times[prompt] += 1
                if settings.times[prompt] > int(found[2]):
                    kind = ""
        settings.num_asked += 1
        fails = bool(settings.fail) and settings.num_asked > settings.fail_after
        if fails:
            kind = settings.fail
        settings.in_flight += 1
        if settings.log is not None:
            row = {
                "time": time.time(),
                "path": path,
                "prompt": prompt,
                "seed": seed,
                "kind": kind,
                "in_flight": settings.in_flight,
                "pid": os.getpid(),
                "headers": head.decode("latin-1"),
            }
            os.write(settings.log, json.dumps(row).encode() + b"\n")
        if settings.max_in_flight and settings.in_flight > settings.max_in_flight:
            response = _error(429, "Too many requests")
        elif asked["model"] != settings.model:
            response = _error(404, f"The model `{asked['model']}` does not exist.")
        else:
            response = self._written(kind, prompt, seed, chat, asked["max_tokens"])
        delay = settings.delay + (0.5 if kind == "slow" else 0.0)
        if settings.serial:  # the rest waits, also what nobody wants any more
            now = time.monotonic()
            settings.free_at = max(now, settings.free_at) + delay
            delay = settings.free_at - now
        if kind == "echo":
            response = b"HTTP/1.1 " + head.replace(b"\r\n", b" ") + b"\r\n\r\n"
        if delay and not fails:  # before those that are still being answered
            asyncio.get_running_loop().call_later(delay, self._finish, kind, response)
        else:
            self._finish(kind, response)

    def _written(self, kind: str, prompt: str, seed: int, chat: bool, max_tokens: int) -> bytes:
        if kind == "context":
            return _error(400, CONTEXT_MESSAGE)
        if kind == "429":
            return _error(429, "Slow down", "Retry-After: 1\r\n")
        if kind.isdigit():
            return _error(int(kind), f"as told: {kind}")
        if kind == "garbage":
            return _response(200, _PAGE)
        if kind == "noise":
            return b"\x00\x01\x02 no http \xff\r\n\r\n"
        if kind == "shapeless":
            return _response(200, b'{"object": "list", "data": []}')
        text: str | None = answer_text(prompt, seed, chat)
        if kind == "null":
            text = None
        elif kind == "java":
            text = "```java\nclass Total {}\n```\n"
        elif kind == "endless":
            text = "x = 1\n" * max_tokens
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "length" if kind == "endless" else "stop",
        }
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        new_tokens = max_tokens if kind == "endless" else len((text or "").split())
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": new_tokens}
        return _response(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def _finish(self, kind: str, response: bytes) -> None:
        self._settings.in_flight -= 1
        if kind == "silent":
            return
        if kind == "nothing":
            self._transport.close()
        elif kind == "flood":
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._flood()
        elif kind == "half":
            self._transport.write(response[: len(response) - 40])
            self._transport.close()
        elif kind == "noise":
            self._transport.write(response)
            self._transport.close()
        else:
            self._send(response)

    def _flood(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            asyncio.get_running_loop().call_later(0.001, self._flood)

    def _send(self, response: bytes) -> None:
        self._transport.write(response)


class FakeServer:
    """The server as a process: `with FakeServer(log=path) as server: ... server.url`.

    `kill` is SIGKILL; `start` after it starts another process on the same port. More arguments of
    the command: `FakeServer("--delay", "0.1")`, for all that is started later: `arguments`.
    """

    def __init__(self, *arguments: str, log: str | os.PathLike[str] | None = None) -> None:
        self.arguments = [*arguments, *(["--log", os.fspath(log)] if log else [])]
        self._log = log
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def asked(self) -> list[dict[str, Any]]:
        """What it was asked, in order; a line being written just now is left out."""
        assert self._log is not None
        if not os.path.exists(self._log):
            return []
        with open(self._log, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


async def _serve(args: argparse.Namespace) -> None:
    settings = _Settings(args)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(settings), "127.0.0.1", args.port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: a free one; the port is printed")
    parser.add_argument("--log", default="", help="file that lists what was asked")
    parser.add_argument("--model", default="fake", help="the one model it has")
    parser.add_argument("--api-key", default="", help="refuse others with 401")
    parser.add_argument("--no-health", dest="health", action="store_false", help="as hosted ones")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--serial", action="store_true", help="one answer after the other")
    parser.add_argument("--fail", default="", metavar="KIND", help="do this at every question")
    parser.add_argument("--fail-after", type=int, default=0, help="but not at so many first ones")
    parser.add_argument("--page", action="store_true", help="a page of HTML at every path")
    parser.add_argument("--max-in-flight", type=int, default=0, help="429 beyond; 0: no bound")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
