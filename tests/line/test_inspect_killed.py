"""A line that is killed and whose disk fills up, as processes, smaller than studies/line.py."""

import pytest

from benchmarks.studies import line


@pytest.mark.slow
def test_every_image_has_one_row_whatever_happens(finished_run, chess_folder, tmp_path):
    images = sorted((chess_folder / "test" / "good").iterdir())
    result = line.disturbed(
        finished_run() / "model.onnx", images, tmp_path / "line", count=120, kills=2
    )
    assert result["rows"] == 120 and result["broken"] == 5
    assert result["rows_when_it_was_full"] < 120 and "the disk is full" in result["said"]
