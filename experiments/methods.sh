#!/usr/bin/env bash
# Every method of the paper's comparisons on real Fashion-MNIST, two seeds each: the table in the README.
# A multilayer perceptron, so that a run takes a minute on two CPU cores. Runs that are finished are left alone and
# interrupted ones go on, so the same command may be given again. First:
#     python -m jsubspace.data.prepare fashion_mnist
# Environment: PYTHON (python), RUNS (runs/methods), SEEDS ("0 1"; the last lines need these two).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python} runs=${RUNS:-runs/methods} seeds=${SEEDS:-0 1}

network=(--config.model.name=mlp --config.model.depth=2 --config.model.width=256)
budget=(--config.optimizer.num_epochs=20 --config.optimizer.warmup_epochs=1 --config.checkpoint_every_epochs=10)
budget+=(--config.log_every_steps=469)

train() { # train NAME CONFIG OVERRIDE ...
  local name=$1 config=$2
  shift 2
  "$python" -m jsubspace.main --config="configs/fashion_mnist_cresnet8_$config.py" --workdir="$runs/$name" \
    "${network[@]}" "${budget[@]}" "$@"
}

collect() { # collect NAME SCHEDULE OVERRIDE ...
  local name=$1 schedule=$2
  shift 2
  train "$name" standard --config.optimizer.schedule="$schedule" --config.optimizer.num_collected=3 "$@"
}

for s in $seeds; do
  seed=--config.seed=$s
  train "standard_$s" standard "$seed" --config.evaluation.every_epochs=1
  train "line_$s" line "$seed"
  train "simplex_$s" simplex "$seed"
  collect "swa_$s" swa_cyclic "$seed"
  collect "swa_constant_$s" swa_constant "$seed"
  collect "snapshot_$s" snapshot "$seed"
  collect "fge_$s" fast_geometric "$seed"
  train "smoothing_$s" standard "$seed" --config.optimizer.label_smoothing=0.1
  train "dropout_$s" standard "$seed" --config.model.dropout_rate=0.1
  train "sam_$s" standard "$seed" --config.optimizer.sam_rho=0.05
  train "curve_$s" curve "$seed"
done
ends=$runs/standard_0,$runs/standard_1
train two simplex --config.start.runs="$ends" --config.subspace.num_endpoints=2 --config.optimizer.num_epochs=0
train connector curve --config.start.runs="$ends" --config.subspace.fixed_ends=True --config.penalty.beta=0
order=()
for name in standard smoothing dropout sam line curve simplex swa swa_constant snapshot fge; do
  for s in $seeds; do order+=("$runs/${name}_$s"); done
done
"$python" -m jsubspace.compare "${order[@]}" "$runs/two" "$runs/connector" --out="${runs}_compared"
