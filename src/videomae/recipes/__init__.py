"""Recipes: everything a run depends on, as typed settings in a YAML file."""
