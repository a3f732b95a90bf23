"""What a user reads when something below went wrong."""

from __future__ import annotations

import apache_beam as beam
import pytest

from beam_pipelines import workers
from beam_pipelines.options import local_options
from snowcoder_jax.errors import InputError, MachineError, is_interrupt, plain_error


def fail_by_input(_: int) -> int:
    raise InputError("sources.x: is empty. Fill it.")


def fail_by_program(_: int) -> int:
    raise KeyError("x")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_fault_inside_beam_reads_as_if_it_were_outside(num_workers: int) -> None:
    with pytest.raises(Exception, match="is empty") as caught:
        with workers.pipeline(local_options(num_workers)) as pipeline:
            _ = pipeline | beam.Create([1, 2]) | beam.Map(fail_by_input)
    error = plain_error(caught.value)
    assert isinstance(error, InputError)
    assert str(error) == "sources.x: is empty. Fill it."


def stop(_: int) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("num_workers", [1, 2])
def test_who_stops_it_inside_beam_has_stopped_it(num_workers: int) -> None:
    with pytest.raises(BaseException, match="Interrupt") as caught:
        with workers.pipeline(local_options(num_workers)) as pipeline:
            _ = pipeline | beam.Create([1, 2]) | beam.Map(stop)
    assert not isinstance(caught.value, KeyboardInterrupt)
    assert is_interrupt(caught.value)
    assert not is_interrupt(ValueError("no KeyboardInterrupt"))


def test_a_fault_of_the_program_is_not_dressed_up() -> None:
    with pytest.raises(Exception, match="x") as caught:
        with workers.pipeline(local_options()) as pipeline:
            _ = pipeline | beam.Create([1]) | beam.Map(fail_by_program)
    assert plain_error(caught.value) is None


def test_a_full_disk_by_any_name_is_the_machines_fault() -> None:
    error = plain_error(RuntimeError("INTERNAL: write failed: No space left on device"))
    assert isinstance(error, MachineError)
    assert "Free some space" in str(error)
