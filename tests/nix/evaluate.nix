# What the checks ask about the modules, answered by the nixpkgs that lies in `nixpkgs`.
# `source`: the checkout, or a copy with a mistake in it.
{
  nixpkgs,
  source ? ../..,
  system ? builtins.currentSystem,
}:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import nixpkgs {
    inherit system;
    config.allowUnfree = true;
  };
  self.packages.${system} = import (source + "/apps/packages.nix") pkgs;
  modules = import (source + "/nixos-modules") { inherit self lib; };
  evaluate =
    module:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      inherit system;
      modules = [
        modules.default
        module
      ];
    };
  textOf = import (source + "/nixos-modules/other-linux/unit-text.nix") { inherit lib; };

  # As NixOS itself writes them, where there is a NixOS.
  unitsOf =
    config:
    lib.mapAttrs (name: service: config.systemd.units."${name}.service".text or (textOf service)) (
      lib.filterAttrs (name: _: name == "cortex" || name == "neuron") config.systemd.services
    );
  isOption = value: (value._type or "") == "option";
  undescribed =
    place: options:
    lib.flatten (
      lib.mapAttrsToList (
        name: option:
        let
          here = "${place}.${name}";
          inner = option.type.getSubOptions or (_: { }) [ ];
        in
        if !isOption option then
          undescribed here option
        else
          lib.optional (!(option ? description && option ? type)) here ++ undescribed here inner
      ) (removeAttrs options [ "_module" ])
    );
in
{
  cases = lib.mapAttrs (import ./judging.nix { inherit lib evaluate; }) (import ./cases.nix);
  everything = unitsOf (evaluate (import ./cases.nix).everything-said.module).config;
  fleet = lib.mapAttrs (
    _: machine:
    let
      inherit (evaluate machine) config;
    in
    {
      failing = map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
      units = unitsOf config;
      ports = config.networking.firewall.allowedTCPPorts;
      files = config.services.cortex.files // config.services.neuron.files;
    }
  ) (import (source + "/nixos-modules/fleet.nix"));
  otherLinux = import (source + "/nixos-modules/other-linux/units.nix") { inherit lib evaluate; };
  # Those for operators, by name.
  options = lib.mapAttrs (
    _: service:
    lib.attrNames (lib.filterAttrs (_: option: !(isOption option && option.internal or false)) service)
  ) { inherit ((evaluate { }).options.services) cortex neuron; };
  undescribed = undescribed "services" {
    inherit ((evaluate { }).options.services) cortex neuron;
  };
  leftOut = self.packages.${system}.cortex-router.disabledTestPaths;
  # What nixpkgs has of what pyproject.toml asks for, by extra.
  versions =
    let
      inherit (lib.importTOML (source + "/pyproject.toml")) build-system project;
      nameOf = requirement: lib.head (builtins.match "([A-Za-z0-9-]+).*" requirement);
      versionOf = requirement: pkgs.python3Packages.${nameOf requirement}.version;
    in
    map (requirement: lib.nameValuePair requirement (versionOf requirement)) (
      build-system.requires
      ++ project.dependencies
      ++ project.optional-dependencies.gateway
      ++ project.optional-dependencies.neuron
      # exllamav2 itself is broken in a nixpkgs without CUDA.
      ++ lib.filter (
        requirement: nameOf requirement != "exllamav2"
      ) project.optional-dependencies.exllamav2
    );
}
