"""Training's progress on the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dsca_ros.training.recipe import Recipe


class TrainingProgress:
    """A bar with the time left, and a line for every validation; see `train.Reporter`."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        self._console = console
        count = TextColumn("{task.completed}/{task.total}")
        columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._views = self._progress.add_task("rendering views", total=None, visible=False)
        self._steps = self._progress.add_task(f"training {recipe.name}", total=recipe.steps)

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def views(self, done: int, total: int) -> None:
        """``done`` of the pool's views are rendered."""
        self._progress.update(self._views, completed=done, total=total, visible=done < total)

    def step(self, step: int, total: int, loss: float, validation: dict[str, float] | None) -> None:
        """A step is done."""
        self._progress.update(self._steps, completed=step)
        if validation:
            figures = ", ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in validation.items())
            self._console.print(f"step {step}: loss {loss:.4f}; held out: {figures}", highlight=False)
