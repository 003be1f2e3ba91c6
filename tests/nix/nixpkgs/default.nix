{
  system ? builtins.currentSystem,
  config ? { },
  ...
}:
import ./pkgs.nix { inherit system config; }
