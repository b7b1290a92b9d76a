"""What networks are for: one task a file."""

from jsubspace.evaluation.tasks.classification import Classification as Classification
from jsubspace.evaluation.tasks.likelihood import Likelihood as Likelihood
from jsubspace.evaluation.tasks.regression import Regression as Regression
from jsubspace.evaluation.tasks.task import Outcomes as Outcomes
from jsubspace.evaluation.tasks.task import Task as Task
from jsubspace.evaluation.tasks.tokens import Tokens as Tokens
