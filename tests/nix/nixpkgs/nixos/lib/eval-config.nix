# A system out of its modules, from the same place as in nixpkgs.
{
  modules,
  system,
  ...
}:
(import ../../lib).evalModules {
  modules = [ ../options.nix ] ++ modules;
  specialArgs.pkgs = import ../.. { inherit system; };
}
