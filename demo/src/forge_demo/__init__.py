"""The whole platform on one machine: real data, real servers, nothing to install."""
