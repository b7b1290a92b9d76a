"""The settings that the command of an experiment's job makes."""

import importlib.util
import pathlib

from places import REPOSITORY

from jsubspace.runs import config


def of_job(job):
    """The config of the job's file, with the job's fields changed."""
    path = REPOSITORY / job.scenario.config
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = module.get_config()
    for field, given in job.fields(pathlib.Path("runs")).items():
        config.change(settings, field, str(given))
    return settings
