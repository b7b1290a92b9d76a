"""The learning rates of the log: the schedule's own numbers, for which the first row compiles nothing."""

import threading

from jax import monitoring

from jsubspace.runs.rates import Rates
from jsubspace.training import schedules


def test_after_the_warm_up_nothing_is_compiled():
    """Alone in its process, this test sees a dozen compilations before."""
    schedule = schedules.warmup_cosine(0.1237, 3, 17)
    compiled, rates = [], Rates(schedule)

    def listen(event, seconds, **kwargs):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        rates.warm_up()
        for thread in threading.enumerate():
            if thread.name == "learning rate":
                thread.join()
        before = len(compiled)
        found = [rates.of_step(step) for step in (1, 2, 4, 17)]
        assert len(compiled) == before
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert found == [float(schedule(step - 1)) for step in (1, 2, 4, 17)]
