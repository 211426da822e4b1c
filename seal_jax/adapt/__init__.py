"""Teach a model your documents: python -m seal_jax.adapt learn | ask | export."""
