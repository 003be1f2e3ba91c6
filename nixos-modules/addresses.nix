# What Nix itself has to know about addresses: how one is written, and who can reach it.
{ lib }:
rec {
  type = lib.types.strMatching "[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*" // {
    description = "IPv4 or IPv6 address";
  };

  isV6 = address: builtins.match ".*:.*" address != null;
  joined =
    address: port:
    if isV6 address then "[${address}]:${toString port}" else "${address}:${toString port}";

  isLoopback = address: address == "::1" || lib.hasPrefix "127." address;
  isEverywhere = address: address == "0.0.0.0" || address == "::";

  # Whether two listeners would take the same port from each other.
  clash =
    one: other:
    one.port == other.port
    && (one.address == other.address || isEverywhere one.address || isEverywhere other.address);
}
