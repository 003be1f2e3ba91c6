# mkIf, mkMerge and mkOverride: what a definition may be wrapped in, and how it is unwrapped.
# A definition is `{ value; priority; conditions; }`; the lowest priority wins.
let
  wrap = kind: fields: { _type = kind; } // fields;
  kindOf = value: if builtins.isAttrs value then value._type or "" else "";

  unwrapped =
    definition:
    let
      inherit (definition) value;
      again = content: unwrapped (definition // { value = content; });
    in
    {
      "if" = map (inner: inner // { conditions = [ value.condition ] ++ inner.conditions; }) (
        again value.content
      );
      "merge" = builtins.concatMap again value.contents;
      "override" = unwrapped (
        definition
        // {
          value = value.content;
          inherit (value) priority;
        }
      );
    }
    .${kindOf value} or [ definition ];
in
rec {
  inherit unwrapped;

  mkIf = condition: content: wrap "if" { inherit condition content; };
  mkMerge = contents: wrap "merge" { inherit contents; };
  mkOverride = priority: content: wrap "override" { inherit priority content; };
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;

  # A plain value as a definition.
  plain = value: {
    inherit value;
    priority = 100;
    conditions = [ ];
  };

  # The definitions whose every condition holds.
  holding = builtins.filter (definition: builtins.all (holds: holds) definition.conditions);

  # Those that no stronger one overrides.
  strongest =
    definitions:
    let
      priority = builtins.foldl' (
        low: one: if one.priority < low then one.priority else low
      ) 9999 definitions;
    in
    builtins.filter (one: one.priority == priority) definitions;

  # What the definitions say about one attribute of theirs.
  within =
    name:
    builtins.concatMap (
      one:
      if builtins.hasAttr name one.value then unwrapped (one // { value = one.value.${name}; }) else [ ]
    );
}
