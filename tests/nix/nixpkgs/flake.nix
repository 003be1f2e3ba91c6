{
  description = "A stand-in for nixpkgs, for machines that have Nix alone";

  outputs =
    { ... }:
    let
      lib = import ./lib;
    in
    {
      lib = lib // {
        nixosSystem = import ./nixos/lib/eval-config.nix;
      };
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ] (system: import ./. { inherit system; });
    };
}
