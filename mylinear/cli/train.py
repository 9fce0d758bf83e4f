"""``mylinear train``: a model from a line, the digits, or a table of the user's."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import mylinear

from .console import say, training_progress

__all__ = ["choose_task", "run_training", "train"]

TaskName = Literal["line", "digits"]


def choose_task(task: TaskName, csv: Path | None = None, target: str | None = None) -> Any:
    """Return the task that the options ask for."""
    if (csv is None) != (target is None):
        raise typer.BadParameter("--csv and --target go together: a table, and the column to predict")
    if csv is not None:
        return mylinear.data.TableTask.from_csv(csv, target)
    return mylinear.data.Line() if task == "line" else mylinear.data.Digits()


def run_training(task: Any, out: Path, **options: Any) -> Any:
    """Train, and leave model.safetensors in ``out``; of steps checkpoint.safetensors and loss.png, too."""
    out.mkdir(parents=True, exist_ok=True)
    with training_progress(f"training: {task.name}") as on_step:
        result = mylinear.training.train(
            task, checkpoint=out / "checkpoint.safetensors", on_step=on_step, **options
        )
    mylinear.modelfile.save_model(out / "model.safetensors", result.model)
    if (result.losses > 0).any():  # no step has no loss, and one of 0 no logarithm
        mylinear.plot.plot_losses(result.losses, out / "loss.png", title=f"Training loss: {task.name}")
    began = f" (resumed at step {result.resumed_at})" if result.resumed_at else ""
    say(f"trained {task.name} for {len(result.losses)} steps on {result.device}{began}")
    for line in result.lines:
        say(f"  {line}")
    return result


def train(
    task: Annotated[TaskName, typer.Option(help="What to train on.")] = "line",
    csv: Annotated[Path | None, typer.Option(help="A table of your own, with a header row.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of --csv to predict.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for what is written.")] = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=0, help="In all; the task's own if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bits on a CPU.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; CUDA if there is one.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
) -> None:
    """Train a model; leaves model.safetensors, checkpoint.safetensors and loss.png in --out."""
    result = run_training(
        choose_task(task, csv, target),
        out,
        steps=steps,
        seed=seed,
        device=device,
        checkpoint_every=checkpoint_every,
        resume=resume,
    )
    drawn = f" and {out / 'loss.png'}" if (result.losses > 0).any() else ""
    say(f"wrote {out / 'model.safetensors'}{drawn}")
