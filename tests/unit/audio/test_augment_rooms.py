"""Rooms: decay times, the image sources one can count by hand, alignment."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.audio.rooms import (
    LEAD,
    SPEED_OF_SOUND,
    Room,
    draw_room,
    find_direct_path,
    measured_response,
    place_in_room,
    simulate_response,
)
from firstwords.audio.waveform import write
from firstwords.errors import AudioError

RATE = 16000


def decay_time(response: np.ndarray, rate: int = RATE) -> float:
    """T60 from the slope between -5 and -25 dB of Schroeder's backward integral."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-12)
    return 3 * float(np.argmax(level < -25) - np.argmax(level < -5)) / rate


@pytest.mark.parametrize("t60", [0.15, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("size", [(3.5, 3.0, 2.5), (9.0, 7.0, 3.5)])
def test_simulated_rooms_have_the_wanted_decay(t60: float, size: tuple[float, float, float]) -> None:
    room = Room(size, (1.0, 1.2, 1.5), (2.6, 2.1, 1.2), t60)
    measured = [decay_time(simulate_response(room, RATE, np.random.default_rng(s))) for s in range(3)]
    assert np.mean(measured) == pytest.approx(t60, rel=0.25)


def test_first_reflections_stand_where_mirrors_put_them() -> None:
    room = Room((6.0, 5.6, 3.7), (2.0, 2.5, 1.5), (4.0, 2.5, 1.5), 0.4)
    response = simulate_response(room, RATE, np.random.default_rng(0))
    assert int(np.argmax(np.abs(response))) == LEAD
    for off in (2 * 1.5, 2 * 2.2, 2 * 2.5):  # floor, ceiling, near wall: the image stands twice as far off
        distance = math.hypot(2.0, off)
        at = LEAD + round((distance - 2.0) / SPEED_OF_SOUND * RATE)
        peak = float(response[at - 1 : at + 2].max()) / float(response[LEAD])
        assert peak == pytest.approx(room.reflection * 2.0 / distance, rel=0.2)


def test_nothing_sounds_before_the_direct_path() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        response = simulate_response(draw_room(generator), RATE, generator)
        assert np.abs(response[: LEAD - 8]).max() < 0.02 * np.abs(response).max()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_drawn_rooms_are_possible(seed: int) -> None:
    room = draw_room(np.random.default_rng(seed))
    for size, source, microphone in zip(room.size, room.source, room.microphone, strict=True):
        assert 0 < source < size
        assert 0 < microphone < size
    assert 0.1 <= room.t60 <= 0.8
    assert 0 < room.reflection < 1
    assert math.dist(room.source, room.microphone) <= 3.0 + 1e-6
    again = draw_room(np.random.default_rng(seed))
    assert again == room


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_rooms_at_other_rates(rate: int) -> None:
    room = Room((5.0, 4.0, 3.0), (1.0, 1.0, 1.5), (3.0, 2.0, 1.2), 0.3)
    response = simulate_response(room, rate, np.random.default_rng(0))
    assert np.isfinite(response).all()
    assert decay_time(response, rate) == pytest.approx(0.3, rel=0.3)


def test_a_click_stays_in_place_and_keeps_its_energy() -> None:
    click = np.zeros(RATE, np.float32)
    click[3000] = 0.5
    for seed in range(10):
        generator = np.random.default_rng(seed)
        room = draw_room(generator, distance=(0.3, 1.0))
        wet = place_in_room(click, simulate_response(room, RATE, generator), direct=LEAD)
        assert wet.shape == click.shape
        assert abs(int(np.abs(wet).argmax()) - 3000) <= 1
        assert float(np.sum(wet**2)) == pytest.approx(0.25, rel=1e-3)


def test_direct_path_is_the_first_strong_peak() -> None:
    response = np.zeros(1000, np.float32)
    response[200], response[201], response[400] = 0.5, 0.7, 1.0  # a reflection may be stronger
    assert find_direct_path(response) == 201
    assert find_direct_path(np.zeros(10, np.float32)) == 0


def test_silence_stays_silent() -> None:
    generator = np.random.default_rng(0)
    response = simulate_response(draw_room(generator), RATE, generator)
    assert not place_in_room(np.zeros(1000, np.float32), response).any()
    assert len(place_in_room(np.zeros(0, np.float32), response)) == 0


def test_measured_responses_are_read_once_and_protected(tmp_path: Path) -> None:
    write(tmp_path / "hall.wav", np.eye(1, 4 * RATE, 50, dtype=np.float32)[0] * 0.9, RATE)
    response = measured_response(tmp_path / "hall.wav", RATE)
    assert measured_response(tmp_path / "hall.wav", RATE) is response
    assert len(response) == 3 * RATE
    with pytest.raises(ValueError, match="read-only"):
        response[0] = 1
    write(tmp_path / "dead.wav", np.zeros(100, np.float32), RATE)
    with pytest.raises(AudioError, match="silent"):
        measured_response(tmp_path / "dead.wav", RATE)


def test_a_room_costs_less_than_twenty_milliseconds() -> None:
    generator = np.random.default_rng(0)
    costs = []
    for _ in range(15):
        start = time.process_time()
        simulate_response(draw_room(generator), RATE, generator)
        costs.append(time.process_time() - start)
    assert float(np.median(costs)) < 0.02  # 1 ms on the machine it was written on
