"""Every code block of README.md and docs/ runs as it stands: what documents promise is what happens.

The blocks of one document run in order in one temporary folder. Each is complete in itself:

- ```python is a script, run by a process of its own;
- ```bash runs under `bash -e`; of a ```console the lines after `$ ` do. What they leave running in the background
  runs on for the later blocks and is killed at the end of the document;
- below `<!-- file: tasks.py -->` a block of any language is written to that file and not run;
- below `<!-- not run: why -->` a block is only read. It must say why.

Servers that blocks name by their usual address are replaced by those of the tests. docs/decisions is left out: its
pages tell of what was tried, not of what is.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forks import Fork

ROOT = Path(__file__).parent.parent.parent
RUNNABLE = {"python", "bash", "console"}
BLOCK_TIMEOUT_S = 120

# What a reader would have on a laptop → the fixture whose URL takes its place.
ADDRESSES = {
    re.compile(r"redis://(?:localhost|127\.0\.0\.1)(?::6379)?(?:/\d+)?(?![\w.:])"): "redis_url",
    re.compile(r"amqp://guest:guest@(?:localhost|127\.0\.0\.1)(?::5672)?/{0,2}(?![\w.:])"): "rabbitmq_url",
    re.compile(r"postgresql://(?:[\w:]+@)?(?:localhost|127\.0\.0\.1)(?::5432)?/\w+"): "postgres_url",
}


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, code, line in the document, and the remark above it."""

    language: str
    code: str
    line: int
    file: str | None
    not_run: str | None


def documents() -> list[Path]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if not path.is_relative_to(ROOT / "docs" / "decisions")]


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown text, with indentation of lists taken off."""
    lines = text.splitlines()
    number, remark = 0, ""
    while number < len(lines):
        line = lines[number]
        number += 1
        if fence := re.fullmatch(r"( *)(`{3,}|~{3,})\s*(\w*).*", line):
            indent, ticks, language = fence.groups()
            start = number
            while number < len(lines) and not re.fullmatch(rf" *{ticks[0]}{{{len(ticks)},}}\s*", lines[number]):
                number += 1
            assert number < len(lines), f"the block of line {start} is never closed"
            code = "".join(f"{body.removeprefix(indent)}\n" for body in lines[start:number])
            number += 1
            yield Block(language, code, start + 1, *remarked(remark, start))
            remark = ""
        elif line.strip():
            remark = line.strip()


def remarked(remark: str, line: int) -> tuple[str | None, str | None]:
    """Read the comment above a block as (file name, reason not to run)."""
    comment = re.fullmatch(r"<!--\s*(file|not run)\b:?\s*(.*?)\s*-->", remark)
    if comment is None:
        return None, None
    kind, value = comment.groups()
    assert value, f"line {line}: `<!-- {kind}: -->` must say {'its name' if kind == 'file' else 'why'}"
    return (value, None) if kind == "file" else (None, value)


class Reader:
    """Follows one document in a folder, as a reader at a keyboard would."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._groups: list[int] = []
        self._transcript = ""
        own = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRA_")}
        self._env = own | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def follow(self, block: Block) -> None:
        """Write or run one block; fail with everything seen so far where it does not end well."""
        if block.not_run is not None:
            return
        if block.file is not None:
            path = (self.folder / block.file).resolve()
            assert path.is_relative_to(self.folder.resolve()), f"{self._at(block)}: {block.file} leaves the folder"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.language in RUNNABLE:
            status = self._run(block)
            assert status == 0, f"{self._at(block)}: the {block.language} block {status}\n\n{self._transcript}"

    def close(self) -> None:
        """End what blocks left in the background: politely first, since workers have children and files."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
            for group in self._groups:
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
            deadline = time.monotonic() + patience
            while any(map(group_lives, self._groups)) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _run(self, block: Block) -> int | str:
        script = self.folder / f".{self.name.replace('/', '-')}-{block.line}.{block.language}"
        if block.language == "python":
            # The script lies beside the reader's own files so that it imports them, and begins as far down as the
            # block does, so that a traceback names the document's line.
            script = self.folder / (re.sub(r"\W", "_", self.name) + f"_{block.line}.py")
            script.write_text("\n" * (block.line - 1) + block.code)
            command = [script.name]
        else:
            code = block.code
            if block.language == "console":
                code = "".join(re.findall(r"^(?:\$|>) (.*\n)", code, flags=re.MULTILINE))
            script.write_text(code)
            command = ["bash", "-e", script.name]
        log = script.with_suffix(".log")
        start = self._fork if block.language == "python" else self._shell
        process = start(command, log)
        self._groups.append(process.pid)
        try:
            code_or_word: int | str = process.wait(BLOCK_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code_or_word = f"did not end in {BLOCK_TIMEOUT_S} s"
        else:
            code_or_word = code_or_word and f"ended with status {code_or_word}"
        self._transcript += f"--- {self._at(block)}\n{log.read_text(errors='replace')}"
        return code_or_word

    def _fork(self, command: list[str], log: Path) -> Fork:
        return Fork(command, out=log, err=log, cwd=self.folder, env=self._env)

    def _shell(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        # A file, not a pipe: what stays in the background would hold a pipe open.
        with log.open("wb") as sink:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _at(self, block: Block) -> str:
        return f"{self.name}:{block.line}"


def group_lives(group: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def follow(name: str, text: str, folder: Path) -> None:
    """Run all blocks of a document and leave nothing running."""
    reader = Reader(name, folder)
    try:
        for block in blocks(text):
            reader.follow(block)
    finally:
        reader.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_the_document_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    for address, fixture in ADDRESSES.items():
        if address.search(text):
            text = address.sub(request.getfixturevalue(fixture), text)
    follow(str(path.relative_to(ROOT)), text, tmp_path)


# --- The runner itself: a runner that runs nothing would find every document right ----------------------------------

SAMPLE = """
<!-- file: greeting/words.py -->
```python
WORD = "hello"
```

```python
import pathlib
from greeting.words import WORD
pathlib.Path("said").write_text(WORD)
```

- In a list:

  ```bash
  test "$(cat said)" = hello
  sleep 300 & echo $! > background
  ```

```console
$ cat said
hello
$ kill -0 $(cat background) && echo \\
>   lives > state
```

<!-- not run: needs a second machine -->
```bash
exit 1
```

```yaml
not: run
```
"""


def test_blocks_share_a_folder_and_what_they_leave_running_ends_with_the_document(tmp_path: Path) -> None:
    follow("sample.md", SAMPLE, tmp_path)
    assert (tmp_path / "state").read_text() == "lives\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "background").read_text()), 0)


def test_a_failing_block_is_reported_at_its_line_of_the_document(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)sample.md:4: the python block.*line 5, in <module>.*division"):
        follow("sample.md", "# Title\n\n```python\nx = 0\n1 / x\n```\n", tmp_path)
    with pytest.raises(AssertionError, match=r"sample.md:2: the bash block ended with status 1"):
        follow("sample.md", "```bash\nfalse\ntrue\n```\n", tmp_path)


def test_a_block_that_is_not_run_must_say_why(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="must say why"):
        follow("sample.md", "<!-- not run -->\n```bash\nexit 1\n```\n", tmp_path)


def test_addresses_of_a_laptop_are_replaced() -> None:
    redis, rabbitmq, postgres = ADDRESSES
    assert redis.sub("R", "--broker redis://localhost:6379/0 and 'redis://localhost:6379'") == "--broker R and 'R'"
    assert redis.sub("R", "redis://localhost:6380") == "redis://localhost:6380"
    assert rabbitmq.sub("A", '"amqp://guest:guest@localhost:5672//"') == '"A"'
    assert postgres.sub("P", "postgresql://localhost/orchestra)") == "P)"
