"""The real coordinator in a played world: broker, nodes, people and time are simulated, services and store are not."""
