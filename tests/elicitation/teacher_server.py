"""The scripted teacher as a server: `python -m tests.elicitation.teacher_server PORT LOG`. Every request is a line of the log."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.elicitation.scripted_teacher import reply_to


class TeacherServer(ThreadingHTTPServer):
    """Serves on 127.0.0.1.

    Args:
        port: 0 for a free one.
        log: where the text of each request is written.
    """

    def __init__(self, port: int, log: Path) -> None:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._send(404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                known = "numbered list" in text or "-----" in text  # else it is what a client asks to see how the server answers
                with lock, log.open("a") as file:
                    file.write(json.dumps(body) + "\n" if known else "")
                said = reply_to(text, body.get("seed", 0)) if known else "yes"
                message = {"role": "assistant", "content": said}
                usage = {"prompt_tokens": len(text.split()), "completion_tokens": len(said.split())}
                self._send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

            def _send(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    TeacherServer(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
