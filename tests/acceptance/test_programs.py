"""The programs of the issue that asked for all this, as users write them, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
from orchestra import *

def researcher(topic="nothing"): return f"sources on [{topic}]"
def analyst(text): return f"analysis of [{text}]"
def writer(text): return f"report: {text}"
"""

PROGRAMS = {
    "a pipeline whose inputs are built from outputs": (
        """
orch = Orchestrator()
gather_task = Task(name="Gather Sources", agent=researcher, input="Find sources on topic X")
analyze_task = Task(name="Analyze Sources", agent=analyst, input=lambda: f"Analyze: {gather_task.output}")
write_task = Task(name="Write Report", agent=writer, input=lambda: f"Write report based on: {analyze_task.output}")
workflow = Workflow(name="Research Pipeline", tasks=[gather_task, analyze_task, write_task],
                    dependencies={"Analyze Sources": ["Gather Sources"], "Write Report": ["Analyze Sources"]})
run = orch.submit_workflow(workflow)
print(run.wait(30).status)
print(write_task.output)
print(run.output == write_task.output, [task.name for task in run.tasks])
""",
        """COMPLETED
report: Write report based on: analysis of [Analyze: sources on [Find sources on topic X]]
True ['Gather Sources', 'Analyze Sources', 'Write Report']
""",
    ),
    "one task with options, looked at by its id": (
        """
import threading
called = threading.Event()
def on_complete(task):
    print("callback", task.output)
    called.set()

orch = Orchestrator()
task = orch.submit(agent=researcher, input="Research quantum computing trends", priority=1,
                   metadata={"customer": "c-17"}, callback=on_complete)
task.wait(30)
called.wait(30)
print(orch.status(task.id), task.output, orch.get_task(task.id).started_at.tzinfo)
print(orch.get_task(task.id).priority, orch.runs(metadata={"customer": "c-17"})[0].id == task.id)
""",
        """callback sources on [Research quantum computing trends]
COMPLETED sources on [Research quantum computing trends] UTC
1 True
""",
    ),
    "handlers of lifecycle and custom events": (
        """
import threading
done = threading.Event()
orch = Orchestrator()

@orch.on("task.completed")
def handle_completion(task): print("task", task.name, task.output)

@orch.on("workflow.completed")
def handle_workflow_done(workflow):
    print("workflow", workflow.name, workflow.status)
    orch.emit("custom.event", data={"key": "value"})

@orch.on("custom.event")
def handle_custom(event):
    print("custom", event.data)
    done.set()

orch.submit_workflow(Workflow(name="One", tasks=[Task(name="only", agent=researcher, input="x")]))
done.wait(30)
""",
        """task only sources on [x]
workflow One COMPLETED
custom {'key': 'value'}
""",
    ),
    "a workflow with an id, its tasks named by theirs": (
        """
task1 = Task(id="task1", name="Gather", agent=researcher, input="x")
task2 = Task(id="task2", name="Analyze", agent=analyst)
task3 = Task(id="task3", name="Write", agent=writer)
orch = Orchestrator()
workflow = Workflow(id="workflow-001", name="Research Pipeline", tasks=[task1, task2, task3],
                    dependencies={"task2": ["task1"], "task3": ["task1", "task2"]})
run = orch.submit_workflow(workflow, pattern=ExecutionPattern.PARALLEL)
print(run.wait(30).output)
print(orch.status("task2"), orch.get_task("task1").output, orch.get_task(run.id, "task2").output)
again = orch.submit_workflow(workflow, pattern=ExecutionPattern.SEQUENTIAL).wait(30)
print(again.output, again.id != run.id)
""",
        """report: {'Gather': 'sources on [x]', 'Analyze': 'analysis of [sources on [x]]'}
COMPLETED sources on [x] analysis of [sources on [x]]
report: analysis of [sources on [x]] True
""",
    ),
    "functions marked as tasks and a workflow of them": (
        """
@task
def gather(topic: str) -> list[str]: return [f"{topic} {n}" for n in range(3)]

@task(priority=2, retry=3)
async def analyze(source: str) -> int: return len(source)

@task
def write(notes: list[int]) -> str: return f"{sum(notes)} letters"

@workflow
def research(topic: str):
    sources = gather(topic)
    notes = analyze.map(sources, max_parallel=20)
    return write(notes)

orch = Orchestrator()
run = orch.submit_workflow(research, "solar").wait(30)
print(run.name, run.output, len(run.tasks))
""",
        "research 21 letters 6\n",
    ),
    "the default orchestrator of a process": (
        """
import orchestra
print(orchestra.default() is orchestra.default())
print(orchestra.default().submit(researcher, "x").wait(30).output)
""",
        "True\nsources on [x]\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_program_runs_as_it_stands(tmp_path: Path, root: Path, program: tuple[str, str]) -> None:
    source, printed = program
    (tmp_path / "program.py").write_text(PRELUDE + source)
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert ended.stderr == ""
    assert (ended.stdout, ended.returncode) == (printed, 0)
