# The modules as the flake offers them: each brings its package along.
{ self, lib }:
let
  service = name: {
    # One key however often it is imported, by itself or as part of `default`.
    key = "cortex#nixosModules.${name}";
    imports = [
      (./. + "/${name}.nix")
      (
        { pkgs, ... }:
        {
          services.${name}.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.${name};
        }
      )
    ];
  };
  modules = lib.genAttrs [
    "cortex"
    "neuron"
  ] service;
in
modules // { default.imports = lib.attrValues modules; }
