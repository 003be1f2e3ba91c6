# What `nix flake check` runs: every other file here is one check, found by its name.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  # One NixOS machine with our modules.
  machine =
    modules:
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      inherit (pkgs.stdenv.hostPlatform) system;
      modules = [ self.nixosModules.default ] ++ modules;
    };
  files = lib.filter (name: lib.hasSuffix ".nix" name && name != "default.nix") (
    lib.attrNames (builtins.readDir ./.)
  );
in
lib.listToAttrs (
  map (
    file:
    lib.nameValuePair (lib.removeSuffix ".nix" file) (
      import (./. + "/${file}") {
        inherit
          lib
          machine
          pkgs
          self
          ;
      }
    )
  ) files
)
