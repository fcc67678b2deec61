"""A llama-server that has a GGUF loaded, and what it is asked."""

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core.errors import UserError
from stages.lib.export import llamacpp

HOST = "127.0.0.1"  # this machine alone
START = 600  # seconds that it may take to load a model
ANSWER = 60  # seconds that it may take to answer


class Server(NamedTuple):
    """The address of a running llama-server, and what this project asks it."""

    address: str

    def rendered(self, messages: list[dict]) -> str:
        """The prompt that it makes of a conversation, by the template in the GGUF."""
        return self._post("apply-template", {"messages": messages})["prompt"]

    def tokenized(self, prompt: str) -> list[int]:
        """The token ids of a prompt, with what the GGUF has added in front."""
        request = {"content": prompt, "add_special": True, "parse_special": True}
        return self._post("tokenize", request)["tokens"]

    def _post(self, path: str, value: dict) -> Any:
        body = json.dumps(value).encode()
        request = urllib.request.Request(f"{self.address}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=ANSWER) as answer:
            return json.load(answer)


@contextmanager
def serving(gguf: Path, context: int) -> Iterator[Server]:
    """A llama-server with a window of `context` tokens, on a free port; it ends with the block.

    Raises UserError with its last lines where it ends before it is ready.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    server = Server(f"http://{HOST}:{port}")
    with tempfile.TemporaryFile("w+") as log:
        command = llamacpp.server_command(gguf, context, HOST, port)
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if not _ready(process, server):
                log.seek(0)
                raise UserError(f"{gguf}: llama-server did not start: {llamacpp.last_lines(log.read())}")
            yield server
        finally:
            process.terminate()
            process.wait()


def _ready(process: subprocess.Popen, server: Server) -> bool:
    """Wait until the server answers; False where its process ends first, or takes longer than START."""
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{server.address}/health", timeout=5):
                return True
        except OSError:  # not listening yet, or still loading
            time.sleep(0.1)
    return False
