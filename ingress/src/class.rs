//! Which Ingresses are this controller's: class selection as Kubernetes and ingress-nginx define it.

use crate::objects::World;
use crate::objects::ingress::Ingress;
use k8s_openapi::api::networking::v1::IngressClass;

/// The annotation that came before `spec.ingressClassName`.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The classes this controller answers for.
#[derive(Clone, Debug)]
pub struct ClassSelection {
    /// Values of `IngressClass.spec.controller`.
    pub controllers: Vec<String>,
    /// Values of the old annotation, also accepted as the name of a class that does not exist.
    pub names: Vec<String>,
    /// Take Ingresses that name no class at all.
    pub without_class: bool,
    /// An IngressClass called by one of the names is ours whatever its controller.
    pub by_name: bool,
    /// Leave out Ingresses with a default backend of their own.
    pub no_catch_all: bool,
}

impl Default for ClassSelection {
    fn default() -> ClassSelection {
        ClassSelection {
            controllers: vec!["podium.dev/ingress".into()],
            names: vec!["podium".into()],
            without_class: false,
            by_name: false,
            no_catch_all: false,
        }
    }
}

impl ClassSelection {
    /// Whether an Ingress is ours. As in ingress-nginx the old annotation, where present, decides alone.
    pub fn selects(&self, ingress: &Ingress, world: &World) -> bool {
        if self.no_catch_all && ingress.default_backend.is_some() {
            return false;
        }
        let annotation = ingress.annotations.get(CLASS_ANNOTATION);
        if let Some(name) = annotation.filter(|name| !name.is_empty()) {
            return self.names.iter().any(|own| **own == **name)
                || world.classes.get(&**name).is_some_and(|class| self.is_ours(class));
        }
        match &ingress.class_name {
            Some(name) => world.classes.get(&**name).is_some_and(|class| self.is_ours(class)),
            None => {
                self.without_class
                    || world.classes.values().any(|c| is_default(c) && self.is_ours(c))
            }
        }
    }

    fn is_ours(&self, class: &IngressClass) -> bool {
        let name = class.metadata.name.as_ref().filter(|_| self.by_name);
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_ref());
        name.is_some_and(|name| self.names.contains(name))
            || controller.is_some_and(|controller| self.controllers.contains(controller))
    }
}

fn is_default(class: &IngressClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DEFAULT_CLASS_ANNOTATION)).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Object;
    use k8s_openapi::api::networking::v1 as api;
    use serde_json::json;

    fn world() -> World {
        let mut world = World::default();
        for (name, controller, default) in [
            ("podium", "podium.dev/ingress", "false"),
            ("nginx", "k8s.io/ingress-nginx", "false"),
            ("main", "podium.dev/ingress", "true"),
        ] {
            let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                "metadata": {"name": name, "annotations": {DEFAULT_CLASS_ANNOTATION: default}},
                "spec": {"controller": controller}});
            world.apply(Object::parse(class).unwrap().unwrap());
        }
        world
    }

    fn ingress(annotation: Option<&str>, class_name: Option<&str>) -> Ingress {
        let mut ingress = api::Ingress::default();
        ingress.metadata.annotations =
            annotation.map(|a| [(CLASS_ANNOTATION.into(), a.into())].into());
        ingress.spec.get_or_insert_default().ingress_class_name = class_name.map(Into::into);
        Ingress::of(&ingress)
    }

    #[test]
    fn classes_select() {
        let podium = ClassSelection::default();
        let drop_in = ClassSelection {
            controllers: vec!["k8s.io/ingress-nginx".into()],
            names: vec!["nginx".into()],
            ..ClassSelection::default()
        };
        for (annotation, class_name, ours, drop_ins) in [
            (None, Some("podium"), true, false),
            (None, Some("nginx"), false, true),
            (None, Some("missing"), false, false),
            (Some("podium"), None, true, false),
            (Some("nginx"), None, false, true),
            (Some("main"), None, true, false),
            (Some("other"), Some("podium"), false, false),
            (None, None, true, false),
        ] {
            let ingress = ingress(annotation, class_name);
            assert_eq!(podium.selects(&ingress, &world()), ours, "{annotation:?} {class_name:?}");
            assert_eq!(
                drop_in.selects(&ingress, &world()),
                drop_ins,
                "{annotation:?} {class_name:?}"
            );
        }
    }

    #[test]
    fn without_a_class_only_when_told_or_by_default_class() {
        let empty = World::default();
        let mut selection = ClassSelection::default();
        assert!(!selection.selects(&ingress(None, None), &empty));
        selection.without_class = true;
        assert!(selection.selects(&ingress(None, None), &empty));
        assert!(!selection.selects(&ingress(Some("nginx"), None), &empty));
    }

    #[test]
    fn by_the_name_of_the_class() {
        let mut selection = ClassSelection { names: vec!["nginx".into()], ..Default::default() };
        assert!(!selection.selects(&ingress(None, Some("nginx")), &world()));
        selection.by_name = true;
        for (class_name, ours) in [("nginx", true), ("podium", true), ("missing", false)] {
            assert_eq!(selection.selects(&ingress(None, Some(class_name)), &world()), ours);
        }
    }

    #[test]
    fn a_default_backend_makes_a_catch_all() {
        let mut catch_all = ingress(None, Some("podium"));
        catch_all.default_backend = Some(Box::default());
        let mut selection = ClassSelection::default();
        assert!(selection.selects(&catch_all, &world()));
        selection.no_catch_all = true;
        assert!(!selection.selects(&catch_all, &world()));
        assert!(selection.selects(&ingress(None, Some("podium")), &world()));
    }
}
