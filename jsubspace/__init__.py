"""jsubspace: train whole subspaces of neural networks in one run, in JAX.

After Wortsman, Horton, Guestrin, Farhadi and Rastegari, "Learning Neural Network Subspaces", ICML 2021.

    endpoints = jsubspace.init_endpoints(key, init_fn, jsubspace.Line())
    grad_fn = jsubspace.value_and_grad(loss_fn, jsubspace.Line(), beta=1.0)
    (value, info), grads = grad_fn(key, endpoints, x, y)     # into any optax optimizer
    network = jsubspace.midpoint(endpoints)                  # or interpolate(endpoints, alpha)
"""

from typing import TYPE_CHECKING

from jsubspace import collector as collector  # It pauses while a program imports the rest.
from jsubspace import lazy as lazy
from jsubspace import preemption as preemption  # It listens to signals from here on, before jax is imported.
from jsubspace.algorithm import Info as Info
from jsubspace.batch_stats import reestimate_batch_stats as reestimate_batch_stats
from jsubspace.description import describe as describe
from jsubspace.evaluation.measure import measure as measure
from jsubspace.evaluation.report import Report as Report
from jsubspace.evaluation.report import ValidationReport as ValidationReport
from jsubspace.evaluation.tasks import Classification as Classification
from jsubspace.evaluation.tasks import Likelihood as Likelihood
from jsubspace.evaluation.tasks import Regression as Regression
from jsubspace.evaluation.tasks import Task as Task
from jsubspace.evaluation.tasks import Tokens as Tokens
from jsubspace.evaluation.uncertainty.measured import uncertainty as uncertainty
from jsubspace.evaluation.uncertainty.report import UncertaintyReport as UncertaintyReport
from jsubspace.exchange.averages import average_checkpoints as average_checkpoints
from jsubspace.exchange.hub import pull as pull
from jsubspace.exchange.hub import push as push
from jsubspace.exchange.saved import load as load
from jsubspace.exchange.saved import save as save
from jsubspace.exchange.subspace_files import SavedSubspace as SavedSubspace
from jsubspace.exchange.subspace_files import load_subspace as load_subspace
from jsubspace.exchange.subspace_files import save_subspace as save_subspace
from jsubspace.fine_tuning import deltas as deltas
from jsubspace.gradients import value_and_grad as value_and_grad
from jsubspace.gradients import value_and_grad_at as value_and_grad_at
from jsubspace.layer_names import layers as layers
from jsubspace.leaf_kinds import all_leaves as all_leaves
from jsubspace.leaf_kinds import kernels as kernels
from jsubspace.learning_rates import Rate as Rate
from jsubspace.learning_rates import Rates as Rates
from jsubspace.learning_rates import rates as rates
from jsubspace.merging.alphas import FittedAlpha as FittedAlpha
from jsubspace.merging.alphas import fit_alpha as fit_alpha
from jsubspace.merging.checkpoints import checkpoint_weights as checkpoint_weights
from jsubspace.merging.clinic import clinic as clinic
from jsubspace.merging.connections import connected as connected
from jsubspace.merging.soups import soup as soup
from jsubspace.optimizers import per_endpoint as per_endpoint
from jsubspace.penalties import cosine_squared as cosine_squared
from jsubspace.penalties import cosines_squared as cosines_squared
from jsubspace.penalties import distances as distances
from jsubspace.penalties import mean_cosine_squared as mean_cosine_squared
from jsubspace.penalties import sample_pair as sample_pair
from jsubspace.points import init_endpoints as init_endpoints
from jsubspace.points import interpolate as interpolate
from jsubspace.points import midpoint as midpoint
from jsubspace.positions import sample_alpha as sample_alpha
from jsubspace.products import as_products as as_products
from jsubspace.subspaces import Chain as Chain
from jsubspace.subspaces import Curve as Curve
from jsubspace.subspaces import Line as Line
from jsubspace.subspaces import Point as Point
from jsubspace.subspaces import Simplex as Simplex
from jsubspace.subspaces import Subspace as Subspace
from jsubspace.tree import stack as stack
from jsubspace.tree import unstack as unstack

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jsubspace import data as data
    from jsubspace import evaluation as evaluation
    from jsubspace import examples as examples
    from jsubspace import exchange as exchange
    from jsubspace import merging as merging
    from jsubspace import models as models
    from jsubspace import runs as runs
    from jsubspace import storage as storage
    from jsubspace import training as training
else:
    _inside = ("evaluation", "exchange", "runs", "storage", "training")
    _former = {"loop": "runs", "networks": "exchange.network_files", "report": "runs.results"}
    __getattr__, __dir__ = lazy.modules(__name__, __path__, _inside, _former)
