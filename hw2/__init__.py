"""Homework 2: meta-generation."""
