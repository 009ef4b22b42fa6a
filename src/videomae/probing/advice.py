"""What to do after a probe, in a sentence: rules on its own figures, nothing else."""

from __future__ import annotations

from videomae.evaluation.metrics import Interval

ENOUGH = 0.95  # accuracy from which errors are as likely in the labels
WORTH = 0.02  # accuracy that twice the labels must promise to be worth the work


def advice(
    *,
    best: str,
    accuracy: float,
    interval: Interval,
    majority: float,
    gain: float,
    gain_interval: Interval,
    labels: int,
) -> str:
    """Return the sentence.

    The rules, the first that fits:

    1. The interval of the best probe reaches down to the majority class: frozen features do not tell the classes
       apart, fine-tune.
    2. The best probe is right in 95 % or more: the probe is enough.
    3. The linear probe's learning curve promises 2 points or more for twice the labels, and the interval of that is
       above zero: label more.
    4. Otherwise more labels hardly help and errors remain: fine-tune.

    Args:
        best: Name of the probe with the highest accuracy.
        accuracy: Its accuracy.
        interval: Of that.
        majority: Accuracy of the most frequent class.
        gain: That twice the labels are expected to add to the linear probe.
        gain_interval: Of that.
        labels: Labelled videos.
    """
    expected = f"{gain:+.1%} expected ({gain_interval.low:+.1%} to {gain_interval.high:+.1%})"
    if interval.low <= majority:
        return (
            f"fine-tune, or try another encoder: the best probe, {best}, is not certainly above the majority class "
            f"({interval.low:.1%} to {interval.high:.1%} against {majority:.1%}); twice the labels: {expected}"
        )
    if accuracy >= ENOUGH:
        return f"the probe is enough: {best} is right in {accuracy:.1%} of the videos; twice the labels: {expected}"
    if gain >= WORTH and gain_interval.low > 0:
        return (
            f"label more: twice the labels, {2 * labels} instead of {labels}, are worth {expected} to the linear "
            "probe; fine-tuning, which was not measured, may add to that"
        )
    return (
        f"fine-tune: twice the labels add little to the linear probe, {expected}, and it is wrong in "
        f"{1 - accuracy:.1%} of the videos at best; what fine-tuning gains was not measured"
    )
