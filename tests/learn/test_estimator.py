"""The Learner keeps scikit-learn's rules: every check passes; none is excepted."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from anygrain.learn import Learner

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning"),
]


@parametrize_with_checks([Learner(rounds=1)])
def test_scikit_learn_check(estimator, check):
    check(estimator)
