"""Tables and figures of the reproduction, made from result files alone (`python -m analysis`)."""
