"""The trainer's log history of a short training."""


def training(step: int, loss: float, **more) -> dict:
    figures = {"grad_norm": 0.5 + step / 7, "learning_rate": 1e-3 / step}
    speed = {"tokens_per_second": 900.0 + step, "peak_memory": 2_500_000_000}
    return {"step": step, "epoch": step / 6, "loss": loss, **figures, **speed, **more}


def validation(step: int, loss: float) -> dict:
    return {"step": step, "epoch": step / 6, "eval_loss": loss}


# As after a resume from step 4: the measurement there was logged by the killed process and by the next one.
HISTORY = [
    training(1, 3.1),
    training(2, 0.1 + 0.2),
    validation(2, 1.5),
    training(3, 2.5),
    training(4, 9.0, usual_loss=2.5, spike_records=["a1", "b2"]),
    validation(4, 1.25),
    validation(4, 1.25),
    training(5, 2.0),
    training(6, 1.9),
    validation(6, 1.4),
]
