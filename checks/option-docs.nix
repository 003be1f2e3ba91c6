# Every option of both modules has what a manual needs: a type, a default that can be shown, a text.
{
  lib,
  pkgs,
  self,
  ...
}:
let
  evaluated = lib.evalModules {
    modules = [
      self.nixosModules.default
      # The options that ours write to belong to NixOS.
      { config._module.check = false; }
    ];
    specialArgs = { inherit pkgs; };
  };
in
(pkgs.nixosOptionsDoc {
  options.services = { inherit (evaluated.options.services) cortex neuron; };
  warningsAreErrors = true;
}).optionsCommonMark
