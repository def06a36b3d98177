"""A report's words about the training, which depend on how the detector performs."""

import pytest

from recon_ad.evaluation.content import training_message


@pytest.mark.parametrize(
    ("auroc", "last", "words"),
    [
        (0.97, True, "figures are good (image AUROC 0.970)"),
        (0.6, False, "It explains nothing."),
        (None, True, "may still be good"),
    ],
)
def test_a_model_that_learnt_little_heads_no_report_of_a_detector_that_is_fine(auroc, last, words):
    fine, message = training_message("It explains nothing.", {"image_auroc": auroc})
    assert fine == last and words in message and "It explains nothing." in message
    assert training_message("", {"image_auroc": auroc}) == (False, "")
